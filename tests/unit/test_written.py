"""Documents as people write them: what is read of JSON and YAML, what is refused with a hint, and where each part stands."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distci.documents.written import located, read_written
from distci.errors import InvalidDocument
from distci.model import Json

YAML = """\
job: team/hello
triggers:
  - {type: job, job: team/lib, on: passed}
tasks:
  - name: test
    type: shell
    script: |
      make
      make test
    retries: 2
    allow_failure: true
    matrix:
      python: ["3.10", '3.11']
"""


def test_yaml_is_what_the_same_in_json_is() -> None:
    matrix = {"python": ["3.10", "3.11"]}
    task = {"name": "test", "type": "shell", "script": "make\nmake test\n", "retries": 2, "allow_failure": True}
    assert read_written(YAML, "job.yaml").document == {
        "job": "team/hello",
        "triggers": [{"type": "job", "job": "team/lib", "on": "passed"}],
        "tasks": [{**task, "matrix": matrix}],
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1: the key 'a' is there twice"),
        ("a:\n  - no\n", "line 2, column 5: no is true or false to some readers of YAML"),
        ("a: On", "line 1, column 4: On is true or false to some"),
        ("a: True", "line 1, column 4: True is true or false to some"),
        ("a: ~", "line 1, column 4: ~ is nothing to some"),
        ("a: 3.10", "line 1, column 4: 3.10 is the number 3.1: put it in quotes"),
        ("a: 012", "line 1, column 4: 012 is a number to some"),
        ("a: 1_000", "line 1, column 4: 1_000 is a number to some"),
        ("a: 12:30", "line 1, column 4: 12:30 is a number to some"),
        ("a: 0x1F", "line 1, column 4: 0x1F is a number to some"),
        ("a: 0o14", "line 1, column 4: 0o14 is a number to some"),
        ("a: 1e3", "line 1, column 4: 1e3 is a number to some"),
        ("a: y", "line 1, column 4: y is true or false to some"),
        ("a: .inf", "line 1, column 4: .inf is a number to some"),
        ("a: 2026-11-25", "line 1, column 4: 2026-11-25 is a date to some"),
        ("a: &x [1]\nb: *x\n", "line 1, column 4: &x: anchors are not read"),
        ("a: *x", "line 1, column 4: *x: anchors are not read"),
        ("a: {<<: {b: c}}", "line 1, column 5: <<: merging is not read"),
        ("a: !!python/object/apply:os.system [id]", "line 1, column 4: the tag tag:yaml.org,2002:python/object/apply"),
        ("? [a]\n: b\n", "line 1, column 3: a key must be a text"),
        ("a: [1", "line 1, column 6: "),
        ("a: b\n\tc: d\n", "line 2, column 1: "),
        ("a: b\n---\nc: d\n", "line 2, column 1: "),
        ("a: '\x01'", "job.yaml: "),
        ('a: "\\U00110000"', "job.yaml: "),
        ('a: "\\UFFFFFFFF"', "job.yaml: "),
        ("- " * 100 + "a", "nested deeper than 64 levels"),
        ("a" * 300_000, "300000 bytes are too many; at most 262144 of YAML are read"),
        ('{"a": 1,}', "line 1, column 9: "),
    ],
)
def test_j11_what_may_surprise_is_refused_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(InvalidDocument) as refused:
        read_written(text.encode(), "job.yaml")
    assert str(refused.value).startswith("job.yaml: ")
    assert problem in str(refused.value)


def test_j11_a_bomb_of_anchors_is_refused_at_the_first_one() -> None:
    lines = ["a0: &a0 [lol, lol]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    with pytest.raises(InvalidDocument, match="line 1, column 5: &a0: anchors are not read"):
        read_written("\n".join(lines), "bomb")


SCRIPT = '{\n  "job": "a",\n  "tasks": [\n    {"name": "x"},\n    {"name": "y", "empty": {}, "none": [],\n     "script": 1}\n  ]\n}\n'


@pytest.mark.parametrize(
    ("text", "problem", "place"),
    [
        (SCRIPT, "tasks[1].script: 1 is not of type string", "line 6, column 6"),
        (SCRIPT, "tasks[0].script: is missing", "line 4, column 5"),
        (SCRIPT, "tasks[1].none[0].x: is wrong", "line 5, column 32"),
        (SCRIPT, "job: is wrong", "line 2, column 3"),
        (SCRIPT, "the document: is wrong", "line 1, column 1"),
        (YAML, "tasks[0].matrix.python[1]: is wrong", "line 13, column 24"),
        (YAML, "tasks[0].type: is wrong", "line 6, column 5"),
        (YAML, "triggers[0].on: is wrong", "line 3, column 32"),
        (YAML, "tasks[0].needs[0]: there is no task 'a: b'", "line 5, column 5"),
    ],
)
def test_a_problem_is_told_with_its_line_and_column(text: str, problem: str, place: str) -> None:
    assert located([problem], read_written(text, "job")) == [f"{place}: {problem}"]


@settings(deadline=None, max_examples=100)
@given(st.text(st.sampled_from("ab.:[]\"' ") | st.characters(), max_size=12))
def test_any_name_in_a_problem_is_told_with_some_place(name: str) -> None:
    problem = f"{name}: cannot be said here"
    assert located([problem], read_written(SCRIPT, "job"))[0].endswith(f": {problem}")


values: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.text("ab", max_size=3), values, max_size=3), st.sampled_from([None, 2]), st.booleans())
def test_each_part_of_a_json_document_is_found_where_it_stands(document: Json, indent: int, escaped: bool) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=escaped)
    written = read_written(text, "x")
    assert written.document == document
    lines = text.split("\n")

    def look(value: Json, path: tuple[str | int, ...]) -> None:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            offset = written._offsets[(*path, key)]
            begins = json.dumps(key if isinstance(value, dict) else item, ensure_ascii=escaped)[:1]
            assert text[offset] == begins
            if isinstance(item, dict | list):
                look(item, (*path, key))

    look(document, ())
    assert lines
