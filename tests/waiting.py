"""Waiting for what other threads and processes do."""

from distci.chaos.waiting import TIME_MAX_S, wait_until

__all__ = ["TIME_MAX_S", "wait_until"]
