"""A system that a browser looks at, and that browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from frontends import SECRET_KEY
from looking import WAIT_MAX_MS, Site, looking
from playwright.sync_api import Browser, Page, expect, sync_playwright

from distci.app import connect
from distci.process import WorkerProcess
from distci.settings import Settings


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    settings = Settings(data=str(tmp_path / "data"), actor="tester", secret_keys=SECRET_KEY)
    with connect(settings=settings) as ci, Site(ci, tmp_path) as site:
        yield site


@pytest.fixture
def worker(site: Site) -> Iterator[WorkerProcess]:
    with site.worker() as process:
        yield process


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "these tests need Chromium: tests/run installs it"
    expect.set_options(timeout=WAIT_MAX_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    with looking(browser, site) as page:
        yield page
