"""The drivers that a worker's operator allows, as one: each command goes to the one that it asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Event

from distci.errors import Invalid, Unavailable
from distci.isolation.host import HostIsolation
from distci.isolation.port import Command, Confinement, Ended, Isolation


class ChosenIsolation:
    """Runs commands in the driver that they name; in the first one where they name none."""

    def __init__(
        self,
        drivers: Mapping[str, Isolation],
        own: HostIsolation,
        missing: Mapping[str, str],
        notes: Mapping[str, str] | None = None,
    ) -> None:
        """``drivers`` by type, what is preferred first; ``own`` runs programs of DistCI's own; ``missing`` says why others are not there; ``notes``
        what is to be known of drivers that are, and what to do.
        """
        self._drivers = drivers
        self._own = own
        self.missing = missing
        self.notes = notes or {}

    @property
    def types(self) -> Sequence[str]:
        return [*self._drivers]

    @property
    def reasons(self) -> str:
        """Why others are not there, as people read it."""
        return "; ".join(f"{name}: {reason}" for name, reason in self.missing.items())

    def run(self, command: Command, output: Callable[[bytes], None], stop: Event) -> Ended:
        driver = self._own if command.confinement is None else self._driver(command.confinement)
        return driver.run(command, output, stop)

    def settle(self, wanted: Confinement, stop: Event) -> Confinement:
        return self._driver(wanted).settle(wanted, stop)

    def _driver(self, confinement: Confinement) -> Isolation:
        wanted = confinement.type or next(iter(self._drivers), "")
        if wanted in self._drivers:
            return self._drivers[wanted]
        if not wanted:
            raise Unavailable(f"nothing that this worker's setting isolation allows can be had here: {self.reasons}")
        reason = self.missing.get(wanted, f"its setting isolation allows {' '.join(self.types)}")
        raise Invalid(f"isolation {wanted} cannot be had from this worker: {reason}")

    def sweep(self) -> int:
        return sum(
            driver.sweep()
            for driver in {id(driver): driver for driver in (*self._drivers.values(), self._own)}.values()
        )
