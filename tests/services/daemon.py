"""Service processes, as ``distci chaos`` starts them."""

from distci.chaos.daemon import Daemon, ServiceFailed, accepts, free_port, free_ports

__all__ = ["Daemon", "ServiceFailed", "accepts", "free_port", "free_ports"]
