"""A whole system with a front end, and browsers that look at it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, ViewportSize

from distci.access import SYSTEM, Person, Role
from distci.app import DistCI
from distci.brokers.direct import Direct
from distci.frontend.serving import FrontEnd
from distci.isolation.host import HostIsolation
from distci.model import BuildId
from distci.process import Post, WorkerProcess
from distci.protocol import Member, Offer, Ticket

KINDS = ("control", "git-checkout", "shell", "publish-artifacts", "copy-artifacts")
BUILD_TIME_MAX_S = 60.0
WAIT_MAX_MS = 15_000
DESK: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 360, "height": 740}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


class Site:
    """A system that serves its page; a context manager. Workers can be had or not."""

    def __init__(self, ci: DistCI, folder: Path) -> None:
        self.ci = ci
        self._folder = folder
        self._front = FrontEnd(ci, "127.0.0.1:0")
        self.address = self._front.address

    def __enter__(self) -> Self:
        self._front.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop_front_end()

    def stop_front_end(self) -> None:
        self._front.stop()
        self._front.wait()

    def start_front_end(self) -> None:
        """Another one, where that was."""
        self._front = FrontEnd(self.ci, self.address.removeprefix("http://"))
        self._front.start()

    def cookie(self, name: str = "tester", roles: Mapping[str, Role] | None = None) -> Any:
        """A session, as a browser keeps it: of an owner of everything, or of somebody with these roles by project."""
        session = self.ci.sessions.begin(Person(name, roles={SYSTEM: Role.OWNER} if roles is None else roles))
        return {"name": f"distci-session-{urlsplit(self.address).port}", "value": session, "url": self.address}

    def url(self, path: str) -> str:
        return f"{self.address}{path}"

    @contextmanager
    def worker(self, name: str = "worker", slots: int = 4, hold_max_s: float = 0.0) -> Iterator[WorkerProcess]:
        """A worker process that serves every kind."""
        post = Post(KINDS, slots=slots)
        process = WorkerProcess(
            Direct(self.ci.lifecycle, self.ci.store),
            HostIsolation(),
            self._folder / "scratch",
            [post],
            search_path=os.defpath,
            name=name,
            hold_max_s=hold_max_s,
        )
        with process:
            yield process

    def save(self, job: str, *tasks: Mapping[str, Any], **more: Any) -> None:
        self.ci.jobs.put({"job": job, "tasks": [*tasks], **more})

    def build(self, job: str, *tasks: Mapping[str, Any], **more: Any) -> BuildId:
        """A build of a new job of these tasks, when it is over."""
        self.save(job, *tasks, **more)
        build = self.ci.builds.trigger(job)
        assert self.ci.builds.wait(build, BUILD_TIME_MAX_S).is_archived
        return build


def shell(script: str, name: str = "test", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "shell", "script": script, **more}


def waits_for(path: Path) -> str:
    """A script that goes on once there is such a file."""
    return f"while [ ! -e {path} ]; do sleep 0.02; done"


def set_aside(ci: DistCI, name: str, reason: str) -> None:
    """A ticket that nobody could do."""
    ci.tickets.post(Ticket(name, "resize", {"picture": "cat.png"}, attempts=1))
    with Member(ci.tickets, Offer(["resize"]), name="resizer") as member:
        next(member.claims()).give_back(reason)


class Watched:
    """What a page did that none of ours may do."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.outside: list[str] = []
        self.errors: list[str] = []
        self._host = urlsplit(address).netloc
        context.on("request", self._requested)
        context.on("console", self._said)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        context.on("dialog", lambda dialog: self._asked(dialog.message, dialog.dismiss))

    def check(self) -> None:
        """That there was nothing of the sort since the last time."""
        outside, errors = self.outside[:], self.errors[:]
        self.outside.clear()
        self.errors.clear()
        assert not outside, outside
        assert not errors, errors

    def _requested(self, request: Request) -> None:
        if urlsplit(request.url).netloc != self._host and not request.url.startswith(("blob:", "data:")):
            self.outside.append(request.url)

    def _said(self, message: ConsoleMessage) -> None:
        # That a request was refused is told to the user, too; the browser says so besides.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.errors.append(message.text)

    def _asked(self, message: str, dismiss: Callable[[], None]) -> None:
        self.errors.append(f"dialog: {message}")
        dismiss()


@contextmanager
def opened(browser: Browser, site: Site, *, is_known: bool = True, **options: Any) -> Iterator[tuple[Page, Watched]]:
    """A page of a new browser, in which somebody is logged in unless they shall not be, and what it does that it may not."""
    context = browser.new_context(base_url=site.address, **{"viewport": DESK, **options})
    context.set_default_timeout(WAIT_MAX_MS)
    if is_known:
        context.add_cookies([site.cookie()])
    watched = Watched(context, site.address)
    try:
        yield context.new_page(), watched
    finally:
        context.close()


@contextmanager
def looking(browser: Browser, site: Site, **options: Any) -> Iterator[Page]:
    """The page alone; whatever a test does, nothing is asked of others and nothing goes wrong in it."""
    with opened(browser, site, **options) as (page, watched):
        yield page
        watched.check()


def complaints(page: Page) -> list[str]:
    """What axe finds wrong with what is shown."""
    found: Any = Axe().run(page, options={"runOnly": RULES, "resultTypes": ["violations"]})
    return [
        f"{rule['id']} at {node['target']}: {node['failureSummary']}"
        for rule in found.response["violations"]
        for node in rule["nodes"]
    ]


def complaints_in_both_colours(page: Page) -> list[str]:
    """The same, light and dark."""
    found = []
    for colours in ("light", "dark"):
        page.emulate_media(color_scheme=colours)
        found += complaints(page)
    return found
