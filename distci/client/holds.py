"""Terminals in failed tasks that are held, through a front end."""

from __future__ import annotations

from distci.builds import TaskView
from distci.client.address import build_of, of_task, segment
from distci.client.link import Link
from distci.holds import COLUMNS, DUMB, LINES, WAIT_MAX_S, Shown, Typed, Visit, new_terminal
from distci.model import BuildId
from distci.views import from_json


class RemoteHolds:
    """As :class:`distci.holds.Holds`. Who goes into a task is who the token is of; ``actor`` is not sent."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def open(
        self,
        build: BuildId | str,
        task: str,
        *,
        lines: int = LINES,
        columns: int = COLUMNS,
        kind: str = DUMB,
        terminal: str = "",
        actor: str = "",
    ) -> Visit:
        path = of_task(build_of(build), task, f"terminals/{terminal or new_terminal()}")
        wanted = {"lines": lines, "columns": columns, "kind": kind}
        return from_json(Visit, self._link.change("PUT", path, wanted))

    def type(self, visit: Visit, number: int, typed: Typed) -> None:
        self._link.change("PUT", f"{_of(visit)}/typed", typed.to_json(), number=number)

    def shown(self, visit: Visit, offset: int, wait_s: float = 0.0) -> Shown | None:
        told = self._link.get(f"{_of(visit)}/shown", offset=offset, wait_s=int(min(wait_s, WAIT_MAX_S)))
        return None if told is None else from_json(Shown, told)

    def release(self, build: BuildId | str, task: str, reason: str = "", *, actor: str = "") -> TaskView:
        path = of_task(build_of(build), task)

        def look() -> object:
            view = self._link.get(path)
            return view if view["hold"] is None else None

        return from_json(TaskView, self._link.change("DELETE", f"{path}/hold", look=look, reason=reason))


def _of(visit: Visit) -> str:
    return of_task(visit.build, visit.task, f"attempts/{segment(visit.token)}/terminals/{visit.terminal}")
