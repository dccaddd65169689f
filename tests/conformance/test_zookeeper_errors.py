"""Every error of kazoo has a home among ours."""

from __future__ import annotations

import inspect

import kazoo.exceptions
import pytest
from kazoo.handlers.threading import KazooTimeoutError

from distci.coordination.port import Reason, Refused, Unknown
from distci.coordination.zookeeper import home_of, outcome_of
from distci.errors import CoordinationUnavailable, DistCIError, Forbidden, Invalid

Fate = Reason | type[Unknown] | type[DistCIError]

FATES: dict[str, Fate] = {
    # What a commit may be refused for.
    "NodeExistsError": Reason.EXISTS,
    "NoNodeError": Reason.MISSING,
    "BadVersionError": Reason.VERSION,
    "NotEmptyError": Reason.NOT_EMPTY,
    "NoChildrenForEphemeralsError": Reason.MISSING,
    # After these it is not known whether the request took effect.
    "ConnectionLoss": Unknown,
    "ConnectionClosedError": Unknown,
    "SessionExpiredError": Unknown,
    "OperationTimeoutError": Unknown,
    "RequestTimeoutError": Unknown,
    "CancelledError": Unknown,
    "KazooTimeoutError": Unknown,
    # Ask for the right.
    "NoAuthError": Forbidden,
    "AuthFailedError": Forbidden,
    "InvalidACLError": Forbidden,
    # Fix the request.
    "BadArgumentsError": Invalid,
    "InvalidCallbackError": Invalid,
    "MarshallingError": Invalid,
    # Wait, then try again: these say that nothing took effect, or never reach a commit.
    "KazooException": CoordinationUnavailable,
    "ZookeeperError": CoordinationUnavailable,
    "ConfigurationError": CoordinationUnavailable,
    "ZookeeperStoppedError": CoordinationUnavailable,
    "ConnectionDropped": CoordinationUnavailable,
    "LockTimeout": CoordinationUnavailable,
    "WriterNotClosedException": CoordinationUnavailable,
    "SASLException": CoordinationUnavailable,
    "RolledBackError": CoordinationUnavailable,
    "SystemZookeeperError": CoordinationUnavailable,
    "RuntimeInconsistency": CoordinationUnavailable,
    "DataInconsistency": CoordinationUnavailable,
    "UnimplementedError": CoordinationUnavailable,
    "UnknownSessionError": CoordinationUnavailable,
    "NewConfigNoQuorumError": CoordinationUnavailable,
    "ReconfigInProcessError": CoordinationUnavailable,
    "APIError": CoordinationUnavailable,
    "SessionMovedError": CoordinationUnavailable,
    "NotReadOnlyCallError": CoordinationUnavailable,
    "EphemeralOnLocalSessionError": CoordinationUnavailable,
    "NoWatcherError": CoordinationUnavailable,
    "ReconfigDisabledError": CoordinationUnavailable,
    "SessionClosedRequireSaslError": CoordinationUnavailable,
    "QuotaExceededError": CoordinationUnavailable,
    "ThrottledOpError": CoordinationUnavailable,
}
"""What a commit comes to when kazoo raises one of its classes. A class that kazoo adds needs a place here, chosen by a person."""


def _kazoo_errors() -> dict[str, type[Exception]]:
    walked = {
        error.__name__: error
        for _, error in inspect.getmembers(kazoo.exceptions, inspect.isclass)
        if issubclass(error, Exception)
    }
    return {**walked, "KazooTimeoutError": KazooTimeoutError}


def test_every_error_of_kazoo_has_a_home() -> None:
    assert _kazoo_errors().keys() == FATES.keys()


@pytest.mark.parametrize("name", FATES)
def test_an_error_of_kazoo_in_an_answer_comes_to(name: str) -> None:
    error, fate = _kazoo_errors()[name](), FATES[name]
    innocent = kazoo.exceptions.RuntimeInconsistency()

    if isinstance(fate, Reason):
        assert outcome_of([kazoo.exceptions.RolledBackError(), error, innocent]) == Refused(1, fate)
    elif issubclass(fate, DistCIError):
        with pytest.raises(fate):
            outcome_of([error])
    else:
        assert outcome_of([error]) == Unknown()


@pytest.mark.parametrize("name", FATES)
def test_an_error_of_kazoo_is_one_of_ours_for_a_reader(name: str) -> None:
    fate = FATES[name]

    home = home_of(_kazoo_errors()[name]("why"))

    assert isinstance(
        home, fate if isinstance(fate, type) and issubclass(fate, DistCIError) else CoordinationUnavailable
    )
    assert name in str(home)


def test_an_error_that_is_not_of_kazoo_stays_what_it_is() -> None:
    error = ZeroDivisionError()

    assert home_of(error) is error
