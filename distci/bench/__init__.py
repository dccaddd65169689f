"""What a system can do, measured on its own back ends, and beside it what these can do by themselves, in the same run.

Every figure that depends on the machine is given with what the raw back end does there and then, since machines differ and are noisy.
"""

from distci.bench.builds import builds
from distci.bench.fenced import fenced
from distci.bench.scale import backlog, idle_crowd
from distci.bench.store import objects
from distci.bench.tickets import crowd, cycle, wake

__all__ = ["backlog", "builds", "crowd", "cycle", "fenced", "idle_crowd", "objects", "wake"]
