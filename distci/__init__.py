"""Continuous integration with no master.

The names below are the ones to build on; each is imported when it is first asked for, so that ``import distci`` costs nothing.

>>> import distci
>>> with distci.connect(folder) as system:
...     list(system.jobs.list())
[]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distci.app import DistCI, connect
    from distci.errors import (
        AlreadyExists,
        ClaimLost,
        Conflict,
        CoordinationUnavailable,
        Damaged,
        Denied,
        DistCIError,
        Forbidden,
        IllegalTransition,
        Invalid,
        InvalidDocument,
        InvalidJob,
        InvalidPath,
        InvalidSettings,
        Missing,
        NoSuchArtifact,
        NoSuchBuild,
        NoSuchChange,
        NoSuchJob,
        NoSuchObject,
        NoSuchReceiver,
        NoSuchSecret,
        NoSuchTask,
        NoSuchTest,
        NoSuchTicket,
        NoSuchToken,
        NoSuchWorker,
        NotAuthenticated,
        StoreUnavailable,
        Unavailable,
        VersionConflict,
        WrongFormat,
    )
    from distci.model import (
        BuildId,
        Concurrency,
        Delivery,
        Filter,
        Hold,
        HookTrigger,
        Job,
        JobTrigger,
        Outcome,
        Parameter,
        ParameterType,
        Permit,
        Plan,
        Policy,
        Result,
        Retrying,
        Task,
        TaskDefinition,
        TaskState,
        Trigger,
        Usage,
        Verdict,
        When,
    )

    __version__: str

__all__ = [
    "AlreadyExists",
    "BuildId",
    "ClaimLost",
    "Concurrency",
    "Conflict",
    "CoordinationUnavailable",
    "Damaged",
    "Delivery",
    "Denied",
    "DistCI",
    "DistCIError",
    "Filter",
    "Forbidden",
    "Hold",
    "HookTrigger",
    "IllegalTransition",
    "Invalid",
    "InvalidDocument",
    "InvalidJob",
    "InvalidPath",
    "InvalidSettings",
    "Job",
    "JobTrigger",
    "Missing",
    "NoSuchArtifact",
    "NoSuchBuild",
    "NoSuchChange",
    "NoSuchJob",
    "NoSuchObject",
    "NoSuchReceiver",
    "NoSuchSecret",
    "NoSuchTask",
    "NoSuchTest",
    "NoSuchTicket",
    "NoSuchToken",
    "NoSuchWorker",
    "NotAuthenticated",
    "Outcome",
    "Parameter",
    "ParameterType",
    "Permit",
    "Plan",
    "Policy",
    "Result",
    "Retrying",
    "StoreUnavailable",
    "Task",
    "TaskDefinition",
    "TaskState",
    "Trigger",
    "Unavailable",
    "Usage",
    "Verdict",
    "VersionConflict",
    "When",
    "WrongFormat",
    "__version__",
    "connect",
]

_HOMES = ("distci.errors", "distci.model", "distci.app")
"""Modules that public names come from, the cheapest first."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = _version() if name == "__version__" else _found(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


def _found(name: str) -> Any:
    from importlib import import_module

    for home in _HOMES:
        module = import_module(home)
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(f"none of {', '.join(_HOMES)} has {name!r}")


def _version() -> str:
    from importlib.metadata import version

    return version("distci")
