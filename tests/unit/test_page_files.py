"""The files that the page is made of: what is of others is as they published it, and nothing is fetched from elsewhere."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from distci.frontend import pages

VENDOR = pages.FOLDER / "vendor"
ROW = re.compile(r"^(\w+\.js) +(\S+) +(\d\S*) +(\S+) +(\S+) +([0-9a-f]{64})$", re.MULTILINE)
VENDORED = {row[0]: row for row in ROW.findall((VENDOR / "README").read_text())}
CHANGED = {"hooks.js": [(b'from"./preact.js"', b'from"preact"')]}
"""What differs from the published files: what stands here, what stood there."""

OURS = sorted(path for path in pages.FOLDER.rglob("*.js") if VENDOR not in path.parents)


def test_every_vendored_file_is_listed() -> None:
    assert {path.name for path in VENDOR.glob("*.js")} == set(VENDORED)


@pytest.mark.parametrize("name", sorted(VENDORED))
def test_a_vendored_file_is_as_it_was_published(name: str) -> None:
    data = (VENDOR / name).read_bytes()
    for here, there in CHANGED.get(name, []):
        data = data.replace(here, there)

    assert hashlib.sha256(data).hexdigest() == VENDORED[name][5]
    assert (VENDOR / f"LICENSE-{VENDORED[name][1]}").is_file()


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(pages.FOLDER)))
def test_a_module_imports_files_that_are_there_and_makes_no_markup_of_texts(path: Path) -> None:
    text = path.read_text()

    for imported in re.findall(r'from "([^"]+)"', text):
        assert (path.parent / imported).is_file()
    assert not re.search(r"innerHTML|dangerouslySetInnerHTML|document\.write|\beval\b|new Function|https?://", text)


@pytest.mark.parametrize("name", [pages.DOCUMENT, pages.LOGIN_DOCUMENT])
def test_a_document_has_no_scripts_or_styles_of_its_own(name: str) -> None:
    text = (pages.FOLDER / name).read_text()

    assert not re.search(r"<script(?! src=)[^>]*>\s*\S|<style|\son\w+=|\sstyle=", re.sub(r' type="module"', "", text))
    assert not re.search(r"https?://", text)
