"""What ``distci`` exports: everything to build on, imported when it is asked for."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from enum import Enum
from pathlib import Path

import pytest

import distci
from distci import app, errors, model

INTERNAL = {"WithProblems", "Progress", "BuildState", "Advance"}
"""The base of errors that name several problems, and what only the planner and those who run it pass to each other."""


def defined_in(module: object) -> set[str]:
    """The public classes that a module defines itself."""
    name = getattr(module, "__name__", "")
    return {
        key
        for key, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == name and not key.startswith("_")
    }


@pytest.mark.parametrize("name", distci.__all__)
def test_every_name_can_be_imported(name: str) -> None:
    assert getattr(distci, name) is not None


def test_every_error_is_exported_and_has_an_exit_code() -> None:
    wanted = defined_in(errors) - INTERNAL

    assert wanted <= {*distci.__all__}
    assert {getattr(distci, name).exit_code for name in wanted} == {1, 2, 4, 5, 6, 7}


def test_every_error_is_below_the_root() -> None:
    assert all(issubclass(getattr(errors, name), distci.DistCIError) for name in defined_in(errors))


def test_the_whole_model_is_exported() -> None:
    assert defined_in(model) - INTERNAL <= {*distci.__all__}


def test_nothing_else_is_exported() -> None:
    homes = defined_in(errors) | defined_in(model) | defined_in(app)

    assert {*distci.__all__} - homes == {"connect", "__version__"}
    assert not INTERNAL & {*distci.__all__}


def test_a_name_is_the_one_of_its_home() -> None:
    assert distci.NoSuchJob is errors.NoSuchJob
    assert distci.BuildId is model.BuildId
    assert distci.connect is app.connect


def test_the_names_are_in_order_and_each_is_there_once() -> None:
    assert distci.__all__ == sorted({*distci.__all__})


def test_dir_shows_them_all() -> None:
    assert dir(distci) == distci.__all__


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(distci.__file__).read_text())
    [checked] = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {name.name for node in checked.body if isinstance(node, ast.ImportFrom) for name in node.names}

    assert imported | {"__version__"} == {*distci.__all__}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'distci' has no attribute 'Bulid'"):
        distci.Bulid  # noqa: B018


def test_an_unknown_name_cannot_be_imported() -> None:
    with pytest.raises(ImportError, match="Bulid"):
        importlib.import_module("distci.Bulid")


def test_a_star_import_gives_them_all() -> None:
    names: dict[str, object] = {}

    exec("from distci import *", names)  # noqa: S102

    assert {*distci.__all__} <= {*names}


def test_the_version_is_that_of_the_distribution() -> None:
    assert distci.__version__ == importlib.metadata.version("distci")


def test_words_of_states_are_texts() -> None:
    words = [getattr(distci, name) for name in ("Verdict", "TaskState", "Result", "When")]

    assert all(issubclass(word, str) and issubclass(word, Enum) for word in words)


@pytest.mark.parametrize("use", ["", "; distci.Invalid, distci.BuildId, distci.connect"])
def test_importing_it_loads_no_back_end(use: str) -> None:
    foreign = ("kazoo", "boto3", "click", "jsonschema", "sqlite3", "requests")
    code = f"import sys, distci{use}; print([name for name in {foreign} if name in sys.modules])"

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert (ran.stdout, ran.stderr) == ("[]\n", "")


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(distci.__file__).with_name("py.typed").exists()
