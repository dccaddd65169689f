"""Files of other systems as jobs: nothing of them is lost without a line, what is made is valid, and nothing passes that was not translated."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from distci.documents.foreign import ForeignFile, ForeignReader, read_foreign
from distci.documents.jobs import job_from_json
from distci.documents.printed import as_yaml
from distci.documents.written import read_nodes, read_written
from distci.errors import DistCIError, Invalid, InvalidDocument
from distci.importing import KINDS, Imported, guess, import_file, import_job
from distci.importing.conditions import Alternative, condition, glob_of
from distci.importing.github import ANNOTATION
from distci.model import Json
from distci.patterns import Pattern

SAMPLES = Path(__file__).parents[1] / "data" / "imports"
FILES = sorted(
    path for path in SAMPLES.rglob("*") if path.suffix in (".yml", ".yaml", ".json") and path.parent.name != "ci"
)
YAML_FILES = [path for path in FILES if path.suffix != ".json"]
TAGS = ("!reference",)


def read(path: str) -> bytes | None:
    found = SAMPLES / path
    return found.read_bytes() if found.is_file() else None


def imported(text: str, kind: str = "", name: str = "file", **more: Any) -> Imported:
    return import_job(text.encode(), name, kind, **more)


def outcome(file: ForeignFile) -> tuple[Json, list[str]]:
    """All that is told of a file: the job, and the notes."""
    try:
        made = import_file(file, guess(file), read=read)
    except DistCIError as error:
        return None, [str(error)]
    return made.document, [str(note) for note in made.notes]


def told(made: Imported) -> str:
    return "\n".join(map(str, made.notes))


def tasks(made: Imported) -> Mapping[str, Mapping[str, Any]]:
    return {task["name"]: task for task in made.document["tasks"]}


# Nothing is lost


class Held(ForeignReader):
    """Reads a tree of nodes that is there already."""

    def __init__(self, node: yaml.Node, name: str) -> None:
        super().__init__(name, TAGS)
        self._node = node

    def compose(self, text: str) -> yaml.Node:
        return self._node


def held(node: yaml.Node, text: str, name: str) -> ForeignFile:
    reader = Held(node, name)
    return ForeignFile(read_nodes(text, name, reader), name, reader.sources, reader.doubts)


def scalars(node: yaml.Node, seen: set[int]) -> Iterator[yaml.ScalarNode]:
    """Every word of a file, keys too, each once however many anchors bring it elsewhere."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        yield node
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from scalars(item, seen)
    else:
        for key, item in node.value:
            if key.value != "<<":
                yield from scalars(key, seen)
            yield from scalars(item, seen)


def another(node: yaml.ScalarNode) -> tuple[str, str]:
    """Another value, and its tag: of the same kind where that is easy."""
    if node.tag.endswith(":bool") and node.style is None:
        return ("false" if node.value.lower() == "true" else "true"), node.tag
    if node.tag.endswith((":int", ":float")) and node.style is None:
        return f"{node.value}7", node.tag
    # Of an action that is translated the version means nothing.
    body = re.split(r"@v\d|\n*$", node.value, maxsplit=1)[0]
    return f"{body}x{node.value[len(body) :]}", "tag:yaml.org,2002:str"


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_every_word_of_a_file_is_translated_or_told(path: Path) -> None:
    text, name = path.read_text(), str(path.relative_to(SAMPLES))
    root = ForeignReader(name, TAGS).compose(text)
    assert root is not None
    usual = outcome(held(root, text, name))
    lost = []
    for node in scalars(root, set()):
        value, tag = node.value, node.tag
        node.value, node.tag = another(node)
        if outcome(held(root, text, name)) == usual:
            lost.append(f"line {node.start_mark.line + 1}: {value!r}")
        node.value, node.tag = value, tag
    # Where there are only anchors, it is these that are looked at.
    assert [item for item in lost if not item.endswith(("'variables'", "'.retrying'"))] == []


def changed(document: Json) -> Iterator[Json]:
    """The document with another value, or without one, once for each that it has."""
    if isinstance(document, dict):
        for key, item in document.items():
            yield {other: value for other, value in document.items() if other != key}
            yield from ({**document, key: other} for other in changed(item))
    elif isinstance(document, list):
        for position, item in enumerate(document):
            yield [*document[:position], *document[position + 1 :]]
            yield from ([*document[:position], other, *document[position + 1 :]] for other in changed(item))
    else:
        yield f"{document}x"


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".json"], ids=lambda path: path.name)
def test_every_value_of_an_old_job_is_translated_or_told(path: Path) -> None:
    document = json.loads(path.read_text())
    usual = outcome(read_foreign(json.dumps(document), path.name))
    lost = [other for other in changed(document) if outcome(read_foreign(json.dumps(other), path.name)) == usual]
    assert [other for other in lost if "configuration-version" in other] == []


# What is made


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
@pytest.mark.parametrize("with_images", [True, False])
def test_what_is_made_is_a_valid_job_and_reads_back_as_it_was(path: Path, with_images: bool) -> None:
    made = import_job(path.read_bytes(), str(path), job="team/hello", with_images=with_images, read=read)

    job_from_json(made.document)
    assert read_written(as_yaml(made.document), "printed").document == made.document
    assert with_images or "container" not in json.dumps(made.document)
    assert [str(note) for note in made.notes] == [str(note) for note in sorted(made.notes)]


def test_a_part_of_the_file_that_is_lost_is_told_with_line_and_column() -> None:
    made = imported(
        "a:\n  script: [make]\n  release: '/x/'\n", name=".gitlab-ci.yml", repository="https://git.example.org/a.git"
    )

    assert told(made).splitlines() == [
        ".gitlab-ci.yml: line 3, column 3: a.release: /x/ (dropped: nothing here stands for it)"
    ]


def test_an_anchor_is_looked_at_where_it_is_brought_to_and_told_where_nobody_knows_it() -> None:
    text = "variables: [&image alpine, &other bash]\nsteps: {a: {image: *image, commands: [*other], odd: *image}}\n"
    made = imported(text, "woodpecker", repository="https://github.com/a/b")

    assert told(made) == "file: line 2, column 48: steps.a.odd: alpine (dropped: nothing here stands for it)"
    assert made.document["triggers"][0]["type"] == "github"


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("x/.github/workflows/a.yml", "a: 1", "github"),
        ("a.yml", "on: push\njobs: {}", "github"),
        (".woodpecker/a.yaml", "a: 1", "woodpecker"),
        ("a.yaml", "steps: []", "woodpecker"),
        (".gitlab-ci.yml", "a: 1", "gitlab"),
        ("a.yaml", "a: {script: make}", "gitlab"),
        ("a.json", '{"job_id": "a", "tasks": []}', "distci-2013"),
    ],
)
def test_whose_file_it_is_is_guessed(name: str, text: str, kind: str) -> None:
    assert imported(text, name=name).kind == kind


def test_a_file_of_which_nobody_can_tell_whose_it_is_is_refused() -> None:
    with pytest.raises(Invalid, match="say it with --from: gitlab, github, woodpecker, distci-2013"):
        imported("a: 1")


# Hostile files


def bomb(depth: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, depth)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (bomb(9), "line 1, column 34: with its anchors written out it has more than 50000 values"),
        ("a: &a [*a]", "line 1, column .*: nested deeper than 64 levels, or within itself"),
        ("a: &a {<<: *a}", "line 1, column .*: is merged into itself"),
        ("a: {<<: [x]}", "line 1, column 10: only objects can be merged into an object"),
        ("a: !!python/object/apply:os.system [id]", "line 1, column 4: the tag .* is not read"),
        ("a: !other [x]", "line 1, column 4: the tag !other is not read"),
        ("a: !!binary eA==", "line 1, column 4: the tag .* is not read"),
        ("? [a]\n: b", "line 1, column 3: a key must be a text"),
        ("a: 1\na: 2", "line 2, column 1: the key 'a' is there twice"),
        ("a: [1", "line 1, column"),
        ("- a", "line 1, column 1: there is no object in it"),
        ("", "line 1, column 1: there is no object in it"),
        ("{" * 100 + "}" * 100, "file: "),
        ("a: " + "[" * 100 + "]" * 100, "nested deeper than 64 levels"),
        ("# " + "x" * 300_000, "300002 bytes are too many"),
        ("a: \x00", "file: "),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_hostile_is_refused_with_its_place(text: str, problem: str, kind: str) -> None:
    with pytest.raises(InvalidDocument, match=problem):
        imported(text, kind)


def test_merging_that_grows_is_refused() -> None:
    wide = "a0: &a0 {" + ", ".join(f"k{n}: x" for n in range(500)) + "}\n"
    lines = [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 8)]

    with pytest.raises(InvalidDocument, match="more than 50000 values"):
        imported(wide + "\n".join(lines), "gitlab")


ODD: Sequence[Json] = (
    None,
    True,
    1,
    1.5,
    "x",
    "${{ x",
    "$CI_X",
    [],
    {},
    [[]],
    [{}],
    {"a": {}},
    [None],
    {"include": [1]},
    "../../etc",
    "a\nb",
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_whatever_stands_where_something_else_should_is_told_or_refused(path: Path) -> None:
    document = read_foreign(path.read_bytes(), str(path), TAGS).document
    seed = random.Random(path.name)
    for odd in ODD:
        for place in seed.sample([*places(document)], 4):
            other = replaced(document, place, odd)
            if isinstance(other, dict):
                made = import_job(
                    json.dumps(other).encode(), path.name, guess(read_foreign(path.read_bytes(), str(path), TAGS))
                )
                assert made.document["tasks"], (place, odd)


def places(document: Json, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    for key, item in (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    ):
        yield from places(item, (*place, key))


def replaced(document: Json, place: tuple[Any, ...], value: Json) -> Json:
    if not place:
        return value
    other = document.copy()
    other[place[0]] = replaced(document[place[0]], place[1:], value)
    return other


def test_files_that_a_file_includes_are_read_by_whoever_may_and_by_nobody_else() -> None:
    text = "include: [/ci/a.yml, {local: b.yml}, 'https://example.org/c.yml', {remote: x}]\nown: {script: x, extends: .base}\n"
    asked: list[str] = []

    def read(path: str) -> bytes | None:
        asked.append(path)
        return b".base: {tags: [big]}\nother: {script: y}\n" if path == "ci/a.yml" else None

    made = imported(text, "gitlab", read=read)

    assert asked == ["ci/a.yml", "b.yml"]
    assert tasks(made)["own"]["labels"] == ["big"]
    assert tasks(made)["other"]["script"] == "y\n"
    assert 'ci/a.yml: line 1, column 16: [".base"].tags[0]: workers have to offer it' in told(made)
    assert "include[2]: https://example.org/c.yml (dropped: nothing is fetched" in told(made)


def test_a_file_that_includes_itself_ends() -> None:
    made = imported("include: a.yml\na: {script: x}", "gitlab", read=lambda _: b"include: a.yml\nb: {script: y}")
    assert {*tasks(made)} == {"checkout", "a", "b"}


# What becomes of what


def test_what_reports_become_is_told_with_line_and_column() -> None:
    made = import_job((SAMPLES / "service.gitlab-ci.yml").read_bytes(), "service.gitlab-ci.yml", read=read)

    assert tasks(made)["unit"]["reports"] == {"coverage": r"TOTAL.*? (?P<percent>\d+)%", "junit": ["report.xml"]}
    assert r"line 95, column 3: unit.coverage: is `reports.coverage` here: TOTAL.*? (?P<percent>\d+)%" in told(made)
    assert "line 99, column 7: unit.artifacts.reports.junit: is `reports.junit` here" in told(made)
    assert re.search(r"line 100, column 7: unit.artifacts.reports.coverage_report: .*\(dropped", told(made))


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("::error file=a.c,line=7::odd: x", {"level": "error", "file": "a.c", "line": "7", "text": "odd: x"}),
        (
            "::warning title=T,file=a.c,col=1,line=7,endLine=9::x",
            {"level": "warning", "file": "a.c", "line": "7", "text": "x"},
        ),
        ("::notice file=a.c::x", {"level": "notice", "file": "a.c", "line": "", "text": "x"}),
        ("::error::x", None),
    ],
)
def test_lines_that_speak_of_files_as_workflows_print_them_are_annotations(line: str, wanted: Json) -> None:
    assert Pattern(ANNOTATION, ["file", "text"]).find(line) == wanted


def gitlab(**job: Json) -> Mapping[str, Any]:
    made = imported(
        json.dumps(
            {
                "stages": ["one", "two"],
                "first": {"stage": "one", "script": "x"},
                "job": {"stage": "two", "script": "make", **job},
            }
        ),
        "gitlab",
    )
    job_from_json(made.document)
    return tasks(made)["job"]


@pytest.mark.parametrize(
    ("job", "wanted"),
    [
        ({"timeout": "1h 30m"}, {"timeout": "90m"}),
        ({"timeout": "90 seconds"}, {"timeout": "90s"}),
        ({"retry": {"max": 2, "exit_codes": [7]}}, {"retries": {"times": 2, "exit_statuses": [7]}}),
        ({"tags": ["big", "arch=arm64"]}, {"labels": ["big", "arch=arm64"]}),
        ({"allow_failure": True}, {"allow_failure": True}),
        ({"needs": []}, {"needs": ["checkout"]}),
        ({"needs": ["first"]}, {"needs": ["first"]}),
        ({"when": "on_failure"}, {"when": "failure"}),
        ({"when": "manual"}, {"needs": ["job go"]}),
        ({"resource_group": "a"}, {"resources": ["a"]}),
        ({"parallel": 2}, {"matrix": {"CI_NODE_INDEX": ["1", "2"]}, "environment": {"CI_NODE_TOTAL": "2"}}),
        ({"image": "alpine:$V", "variables": {"V": "3"}}, {"isolation": {"type": "container", "image": "alpine:3"}}),
        (
            {"rules": [{"if": '$CI_PIPELINE_SOURCE == "push" && $CI_COMMIT_BRANCH == "a"'}]},
            {"if": {"events": ["push"], "branches": ["a"]}},
        ),
        ({"rules": [{"changes": ["src/**/*"]}]}, {"if": {"paths": ["src/*"]}}),
        (
            {"rules": [{"if": "$CI_COMMIT_TAG"}, {"if": "$CI_MERGE_REQUEST_IID"}]},
            {"if": {"events": ["tag", "pull_request"]}},
        ),
        ({"rules": [{"if": "$OTHER"}]}, {"if": {"parameters": {"RUN_JOB": "true"}}}),
        ({"rules": [{"exists": ["a"]}]}, {"if": {"parameters": {"RUN_JOB": "true"}}}),
        ({"rules": [{"when": "never"}]}, {"if": {"parameters": {"RUN_JOB": "true"}}}),
        ({"only": ["tags"]}, {"if": {"events": ["tag"]}}),
        ({"script": "curl $API_TOKEN $HOME"}, {"secrets": ["API_TOKEN"]}),
        ({"coverage": "/Lines: .*%/"}, {"reports": {"coverage": "(?P<percent>Lines: .*%)"}}),
        (
            {"coverage": r"/[(]all\) (?:a|b)(x)(\d+(?:\.\d+)?)%/"},
            {"reports": {"coverage": r"[(]all\) (?:a|b)(x)(?P<percent>\d+(?:\.\d+)?)%"}},
        ),
        (
            {"coverage": r"/(?i)\Q(\E(?<share>\d+)[[:alpha:](]/"},
            {"reports": {"coverage": r"(?i)\Q(\E(?P<percent>\d+)[[:alpha:](]"}},
        ),
        ({"coverage": r"/(a)\1/"}, {"reports": None}),
        (
            {"artifacts": {"reports": {"junit": ["./a.xml", "**/TEST-*.xml"]}}},
            {"reports": {"junit": ["a.xml", "**/TEST-*.xml"]}},
        ),
        ({"artifacts": {"reports": {"junit": "$CI_PROJECT_DIR/a.xml"}}}, {"reports": None}),
        (
            {"trigger": {"project": "a/b"}, "coverage": "/x/", "artifacts": {"reports": {"junit": "a"}}},
            {"reports": None},
        ),
    ],
)
def test_what_a_job_of_gitlab_says_a_task_says(job: dict[str, Json], wanted: dict[str, Json]) -> None:
    made = gitlab(**job)
    assert {key: made.get(key) for key in wanted} == wanted


def reporting(uses: str, **given: Json) -> dict[str, Json]:
    return {"uses": uses, "if": "always()", "with": given}


def github(**job: Json) -> Mapping[str, Any]:
    made = imported(
        json.dumps({"on": "push", "jobs": {"job": {"runs-on": "ubuntu-latest", "steps": [{"run": "make"}], **job}}}),
        "github",
    )
    job_from_json(made.document)
    return tasks(made)["job"]


@pytest.mark.parametrize(
    ("job", "wanted"),
    [
        ({"timeout-minutes": 90}, {"timeout": "90m"}),
        ({"continue-on-error": True}, {"allow_failure": True}),
        ({"container": "alpine"}, {"isolation": {"type": "container", "image": "alpine"}}),
        ({"runs-on": ["self-hosted", "gpu"]}, {"labels": ["gpu"]}),
        ({"env": {"A": "${{ secrets.B }}"}}, {"secrets": ["B"], "script": 'export A="${B}"\n(\nmake\n)\n'}),
        ({"env": {"B": "${{ secrets.B }}"}}, {"secrets": ["B"], "script": "(\nmake\n)\n"}),
        (
            {"if": "github.ref == 'refs/heads/main'"},
            {"if": {"events": ["push", "manual", "cron"], "branches": ["main"]}},
        ),
        ({"if": "${{ github.event_name == 'pull_request' }}"}, {"if": {"events": ["pull_request"]}}),
        ({"if": "startsWith(github.ref, 'refs/tags/')"}, {"if": {"events": ["tag"]}}),
        ({"if": "always()"}, {"when": "always"}),
        ({"if": "failure()"}, {"when": None}),
        ({"if": "contains(github.event.head_commit.message, 'x')"}, {"if": {"parameters": {"RUN_JOB": "true"}}}),
        (
            {"strategy": {"matrix": {"a-b": [1, 2]}}, "steps": [{"run": "x ${{ matrix.a-b }}"}]},
            {"matrix": {"a_b": ["1", "2"]}, "script": "(\nx {a_b}\n)\n"},
        ),
        (
            {
                "strategy": {
                    "matrix": {"a": [1, 2], "b": ["x"], "exclude": [{"a": 1}], "include": [{"a": 2, "c": 3}, {"a": 4}]}
                }
            },
            {"matrix": {"include": [{"a": "2", "b": "x", "c": "3"}, {"a": "4", "b": "-", "c": "-"}]}},
        ),
        ({"concurrency": "one"}, {"resources": ["one"]}),
        (
            {
                "steps": [
                    {"run": "make"},
                    reporting("dorny/test-reporter@v2", path="a.xml, b/*.xml", reporter="java-junit"),
                ]
            },
            {"reports": {"junit": ["a.xml", "b/*.xml"], "exit_statuses": [0]}, "script": "(\nmake\n)\n"},
        ),
        (
            {
                "steps": [
                    reporting("mikepenz/action-junit-report@v5"),
                    reporting("EnricoMi/publish-unit-test-result-action/linux@v2", files="x.xml\ny.xml\n"),
                ]
            },
            {"reports": {"junit": ["**/junit-reports/TEST-*.xml", "x.xml", "y.xml"]}},
        ),
        (
            {
                "steps": [
                    {"run": "make"},
                    reporting("dorny/test-reporter@v2", path="${{ env.A }}", reporter="jest-junit"),
                ]
            },
            {"reports": None},
        ),
        ({"steps": [{"run": "echo '::error file=a.c,line=7::odd'"}]}, {"reports": {"annotations": ANNOTATION}}),
    ],
)
def test_what_a_job_of_github_says_a_task_says(job: dict[str, Json], wanted: dict[str, Json]) -> None:
    made = github(**job)
    assert {key: made.get(key) for key in wanted} == wanted


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        ({"event": "push", "branch": "main"}, {"if": {"events": ["push"], "branches": ["main"]}}),
        ([{"event": "push"}, {"event": "tag"}], {"if": {"events": ["push", "tag"]}}),
        ({"path": ["a/**"]}, {"if": {"paths": ["a/*"]}}),
        ({"status": ["failure"]}, {"when": "failure"}),
        ({"status": ["success", "failure"]}, {"when": "always"}),
        ({"evaluate": "x"}, {"if": {"parameters": {"RUN_STEP": "true"}}}),
        ({"branch": {"exclude": "main"}}, {"if": {"parameters": {"RUN_STEP": "true"}}}),
    ],
)
def test_when_a_step_of_woodpecker_runs_its_task_does(step: Json, wanted: dict[str, Json]) -> None:
    made = imported(json.dumps({"steps": {"step": {"image": "a", "commands": ["x"], "when": step}}}), "woodpecker")
    job_from_json(made.document)
    assert {key: tasks(made)["step"].get(key) for key in wanted} == wanted


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        ("github", {"on": "push", "jobs": {"a": {"steps": [{"uses": "org/deploy@v1"}]}}}),
        ("github", {"on": "push", "jobs": {"a": {"uses": "org/deploy/x.yml@v1"}}}),
        ("github", {"on": "push", "jobs": {"a": {"steps": [{"run": "true", "if": "contains(x, 'y')"}]}}}),
        ("woodpecker", {"steps": {"a": {"image": "plugin", "settings": {"x": 1}}}}),
        ("gitlab", {"a": {"trigger": {"include": "child.yml"}}}),
        ("distci-2013", {"job_id": "a", "tasks": [{"type": "a", "params": {}}]}),
    ],
)
def test_what_is_not_translated_fails_its_task_and_says_so(kind: str, document: Json) -> None:
    script = tasks(imported(json.dumps(document), kind))["a"]["script"]

    ran = subprocess.run(["sh", "-e", "-c", script], capture_output=True, text=True)

    assert ran.returncode == 1
    assert ran.stderr.startswith("Not translated: ")


@pytest.mark.parametrize(
    ("alternatives", "passes", "leaves"),
    [
        ([Alternative(("push",), ("main",)), Alternative(("tag",))], ["push:main", "tag:"], ["push:other", ":main"]),
        ([Alternative((), ("wip*",), runs=False), Alternative(("push",))], ["push:main"], ["push:wip/a", "tag:"]),
        ([Alternative(("manual",), ("a b$(x)",)), Alternative(("tag",))], [":a b$(x)"], [":a b"]),
    ],
)
def test_what_no_filter_says_the_script_says_first(
    alternatives: list[Alternative], passes: list[str], leaves: list[str]
) -> None:
    found = condition(alternatives)

    def runs(event: str, branch: str) -> bool:
        variables = {"DISTCI_EVENT": event, "DISTCI_BRANCH": branch}
        ran = subprocess.run(
            ["sh", "-e", "-c", f"{found.guard}echo ran"], env=variables, capture_output=True, text=True, check=True
        )
        return ran.stdout == "ran\n"

    assert found.filter is None
    assert [text for text in [*passes, *leaves] if runs(*text.split(":", 1))] == passes


@pytest.mark.parametrize(
    ("expression", "glob"),
    [
        ("^release\\/.*$", "release/*"),
        ("^v\\d+$", None),
        ("fix", "*fix*"),
        ("^main$", "main"),
        ("^a|b$", None),
        ("^a+$", None),
        ("^v1\\.2$", "v1.2"),
    ],
)
def test_a_simple_regular_expression_is_a_glob(expression: str, glob: str | None) -> None:
    assert glob_of(expression) == glob


# Printing


TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
    st.sampled_from(
        [
            "no",
            "On",
            "~",
            "012",
            "12:30",
            "3.10",
            "1e5",
            "0x1",
            "2026-11-25",
            "<<",
            "=",
            "a: b",
            "# x",
            "- x",
            "x\n",
            "\n x",
            "a\r\nb",
            " x",
            "*a",
            "&a",
            "!x",
            "%",
            "@",
            "`",
            "null",
            "",
            "\u0085",
            "\u2028",
            "\ufeff",
            "1_0",
            "-.inf",
            "+1",
            "0o7",
        ]
    ),
)


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.one_of(TEXTS, st.booleans(), st.integers(-99, 99)),
        lambda part: st.one_of(
            st.lists(part, max_size=3), st.dictionaries(TEXTS.filter(lambda key: key != "<<"), part, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_what_is_printed_reads_back_as_it_was(value: Json) -> None:
    document = {"a": value}
    assert read_written(as_yaml(document), "printed").document == document
