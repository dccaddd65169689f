"""Artifacts by the build that published them, whichever task and attempt that was."""

from __future__ import annotations
