"""What a job document may say, and what is refused, with the place and a hint."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from distci import plan
from distci.documents.jobs import COMMON_KEYS, job_from_json, warnings_for
from distci.documents.schema import BUILT_IN, WORKERS
from distci.documents.stored import plan_from_bytes, plan_to_bytes
from distci.errors import InvalidJob
from distci.model import (
    BuildId,
    Concurrency,
    HookTrigger,
    Job,
    Json,
    Permit,
    Policy,
    Trigger,
)

DOCS = Path(__file__).parents[2] / "docs" / "jobs.rst"

REMOTE = "https://git.example.org/hello.git"


def shell(name: Any = "t", **keys: Json) -> dict[str, Json]:
    return {"name": name, "type": "shell", "script": "true", **keys}


def job(*tasks: Json, **keys: Json) -> dict[str, Json]:
    return {"job": "team/hello", "tasks": list(tasks or [shell()]), **keys}


def problems(document: Json) -> tuple[str, ...]:
    with pytest.raises(InvalidJob) as refused:
        job_from_json(document)
    return refused.value.problems


def example() -> dict[str, Json]:
    """The job that the documentation shows."""
    block = re.search(r"\.\. code-block:: json\n\n((?:    .*\n|\n)+)", DOCS.read_text())
    assert block
    return json.loads(block[1])  # type: ignore[no-any-return]


def test_the_example_of_the_documentation_is_a_job_that_can_be_planned() -> None:
    made = plan.expand(job_from_json(example()), BuildId("team/hello", 1), 1, Trigger())
    assert "test[3.11,arch=amd64]" in {task.name for task in made.tasks}


def test_a_job_of_three_lines_is_enough() -> None:
    assert job_from_json(job()).tasks[0].arguments == {"script": "true"}


def test_a_document_says_all_that_a_definition_holds() -> None:
    read = job_from_json(
        job(
            shell("a"),
            shell("b", needs=["a"], when="always", on_cancel=True, timeout="10m", attempts=2, retries=1, priority=0),
            environment={"A": "1"},
            triggers=[{"type": "cron", "schedule": "0 3 * * *"}, {"type": "job", "job": "team/lib", "on": "always"}],
        )
    )
    assert isinstance(read, Job)
    second = read.tasks[1]
    assert (second.needs, second.on_cancel, second.timeout_s) == (("a",), True, 600.0)
    assert (second.attempts, second.retries, second.priority) == (2, 1, 0)
    assert [trigger.job for trigger in read.triggers] == ["team/lib"]


@pytest.mark.parametrize(
    ("duration", "seconds"), [("1s", 1.0), ("90s", 90.0), ("10m", 600.0), ("2h", 7200.0), ("1d", 86400.0)]
)
def test_durations_have_a_unit(duration: str, seconds: float) -> None:
    assert job_from_json(job(shell(timeout=duration))).tasks[0].timeout_s == seconds


GIT = {"name": "g", "type": "git-checkout", "repository": REMOTE}
COPY = {"name": "c", "type": "copy-artifacts", "job": "team/lib"}
LEVEL = {"LEVEL": {"default": "fast", "choices": ["fast", "full"]}}

WRONG: list[tuple[Json, str]] = [
    # the document
    ([], "the document: [] is not of type object"),
    (None, "the document: null is not of type object"),
    ({"tasks": [shell()]}, "job: is missing"),
    ({"job": "a"}, "tasks: is missing"),
    (
        job(shell(script_from={"repository": "/x", "commit": "1" * 40, "path": "a"})),
        "tasks[0].script_from: stands in place of `script`",
    ),
    (
        job({"name": "t", "type": "shell", "script_from": {"repository": "/x", "commit": "main", "path": "a"}}),
        "tasks[0].script_from.commit: ",
    ),
    ({"job": "a", "tasks": []}, "tasks: "),
    ({"job": "a", "tasks": {}}, "tasks: {} is not of type array"),
    (job(format=2), "format: 2 is not one of: 1"),
    (job(task=[]), "task: unknown key; did you mean 'tasks'?"),
    (job() | {"job": "../etc"}, 'job: "../etc" is not allowed here'),
    (job() | {"job": "a/b/c/d/e"}, "job: "),
    (job() | {"job": "a\n"}, "job: "),
    (job(**{"a b": 1}), '["a b"]: unknown key'),
    # what no script can be given
    (job(shell(script="a\0b")), "tasks[0].script: has a NUL in it"),
    (job(shell(script="\ud800")), "tasks[0].script: has half a surrogate pair in it"),
    (job(shell(attempts=float("nan"))), "tasks[0].attempts: nan is not JSON"),
    (job(shell(labels=("a",))), "tasks[0].labels: tuple is not JSON"),
    (job(shell(environment={1: "x"})), "tasks[0].environment: the key 1 is no text"),
    # keys and values of tasks
    (job(shell(scirpt="x")), "tasks[0].scirpt: unknown key; did you mean 'script'?"),
    (job({"name": "t", "type": "shell"}), "tasks[0].script: is missing"),
    (job({"type": "shell", "script": "x"}), "tasks[0].name: is missing"),
    (job({"name": "t", "script": "x"}), "tasks[0].type: is missing"),
    (job(shell(type="shel")), "tasks[0].type: there is no type of task 'shel'; did you mean 'shell'?"),
    (job(shell(type="control")), "tasks[0].type: there is no type of task 'control'"),
    (job(shell(type={})), "tasks[0].type: {} is not of type string"),
    (job("t"), 'tasks[0]: "t" is not of type object'),
    (job(shell("a[1]")), 'tasks[0].name: "a[1]" is not allowed here'),
    (job(shell("a\n")), 'tasks[0].name: "a\\n" is not allowed here'),
    (job(shell(timeout=90)), "tasks[0].timeout: 90 is not of type string"),
    (job(shell(timeout="90")), 'tasks[0].timeout: "90" is not allowed here'),
    (job(shell(timeout="0s")), 'tasks[0].timeout: "0s" is not allowed here'),
    (job(shell(timeout="9" * 5000 + "s")), "tasks[0].timeout: "),
    (job(shell(priority=10)), "tasks[0].priority: "),
    (job(shell(attempts=0)), "tasks[0].attempts: "),
    (job(tags=["a b"]), 'tags[0]: "a b" is not allowed here'),
    (job(shell(when="sucess")), 'tasks[0].when: "sucess" is not one of: success, failure, always; did you mean'),
    (job(shell(on_cancel=True)), "tasks[0].on_cancel: goes with `when: always` only"),
    (job(shell(labels=["a b"])), 'tasks[0].labels[0]: "a b" is not allowed here'),
    (job(shell(secrets=["a-b"])), 'tasks[0].secrets[0]: "a-b" is not allowed here'),
    (job(shell(isolation={"type": "jail"})), "tasks[0].isolation.type: "),
    (job(shell(**{"if": {"branch": ["x"]}})), "tasks[0].if.branch: unknown key; did you mean 'branches'?"),
    (job(shell(**{"if": {"parameters": {"A": [1]}}})), "tasks[0].if.parameters.A: "),
    # paths and options
    (job(shell(directory="/etc")), 'tasks[0].directory: "/etc" is not allowed here'),
    (job(shell(directory="a/../b")), 'tasks[0].directory: "a/../b" is not allowed here'),
    (job(shell(directory="..")), 'tasks[0].directory: ".." is not allowed here'),
    (job(shell(directory="a\n")), "tasks[0].directory: "),
    (job({"name": "p", "type": "publish-artifacts", "paths": ["../x"]}), 'tasks[0].paths[0]: "../x" is not allowed'),
    (job({"name": "p", "type": "publish-artifacts", "paths": []}), "tasks[0].paths: "),
    (job(GIT | {"repository": "--upload-pack=x"}), "tasks[0].repository: "),
    (job(GIT | {"ref": "-x"}), 'tasks[0].ref: "-x" is not allowed here'),
    (job(COPY | {"build": "lst-passed"}), "tasks[0].build: "),
    # variables
    (job(environment={"DISTCI_X": "1"}), "environment.DISTCI_X: this variable is set by DistCI itself"),
    (job(shell(environment={"CI": "1"})), "tasks[0].environment.CI: this variable is set by DistCI itself"),
    (job(parameters={"DISTCI": {}}), "parameters.DISTCI: this variable is set by DistCI itself"),
    (job(shell(matrix={"CI": ["1"]})), "tasks[0].matrix.CI: this variable is set by DistCI itself"),
    (job(shell(secrets=["A"], secret_files=["A"])), "tasks[0].secret_files: A is among its secrets, too"),
    (job(shell(secret_files=["CI"])), "tasks[0].secret_files.CI: this variable is set by DistCI itself"),
    (job(shell(secrets=["CI"])), "tasks[0].secrets.CI: this variable is set by DistCI itself"),
    (job(environment={"A-B": "1"}), 'environment.A-B: "A-B" cannot be a name here'),
    (job(environment={"A": 1}), "environment.A: 1 is not of type string"),
    (job(parameters=LEVEL, environment={"LEVEL": "x"}), "environment.LEVEL: is a parameter of the job already"),
    (job(parameters={"L": {"default": "fst", "choices": ["fast"]}}), "parameters.L.default: 'fst' is not one of"),
    (job(parameters={"L": {"default": "x", "required": True}}), "parameters.L.default: is never used"),
    # matrices
    (job(shell(matrix={"v": []})), "tasks[0].matrix.v: "),
    (job(shell(matrix={"v": ["a,b"]})), 'tasks[0].matrix.v[0]: "a,b" is not allowed here'),
    (job(shell(matrix={"v": ["1", "2"], "max": 1})), "tasks[0].matrix: 2 combinations; at most 1"),
    (job(shell(matrix={"v": ["1"], "exclude": [{"v": "1"}]})), "tasks[0].matrix: nothing is left of it"),
    (job(shell(matrix={"v": ["1"], "exclude": [{"w": "1"}]})), "tasks[0].matrix.exclude[0].w: the matrix has no such"),
    (job(shell(matrix={"v": ["1"], "exclude": [{"v": "2"}]})), "tasks[0].matrix.exclude[0].v: '2' is no value"),
    (job(shell(matrix={"v": ["1"], "include": [{"w": "1"}]})), "tasks[0].matrix.include[0].v: is missing"),
    (job(shell(matrix={"v": ["1"], "include": [{"v": "1"}]})), "tasks[0].matrix: two tasks would be named 't[1]'"),
    (job(shell(matrix={f"a{n}": [str(m) for m in range(20)] for n in range(9)})), "tasks[0].matrix: spans"),
    (job(shell(matrix={"v": [str(n) for n in range(150)]}), shell("u", matrix={"v": [str(n) for n in range(150)]})), "tasks: 300 tasks"),
    (job(shell(matrix={"v": ["x" * 70], "w": ["y" * 70]})), "tasks[0].matrix: the name"),
    (job(shell(directory="{d}", matrix={"d": ["../x"]})), 'tasks[0].directory: "../x" is not allowed here'),
    (job(GIT | {"ref": "{r}", "matrix": {"r": ["-x"]}}), 'tasks[0].ref: "-x" is not allowed here'),
    (job(shell(matrix={"label": ["a b"]})), 'tasks[0].labels[0]: "a b" is not allowed here'),
    (job(*[shell("n" * 60 + str(n), needs=[]) for n in range(200)]), "tasks: the state of 200 tasks"),
    (job(shell(script="x" * 2_000_000, matrix={"v": ["1", "2"]})), "tasks: with all matrices expanded they take"),
    # how tasks hang together
    (job(shell("a"), shell("a")), "tasks[1].name: 'a' is the name of another task already"),
    (job(shell("test"), shell("b", needs=["tset"])), "tasks[1].needs[0]: there is no task 'tset'; did you mean 'test'?"),
    (job(shell("t", matrix={"v": ["1"]}), shell("b", needs=["t[2]"])), "tasks[1].needs[0]: there is no task 't[2]'"),
    (job(shell("a", needs=["a"])), "tasks: they need each other in a circle: a -> a"),
    (job(shell("a", needs=["b"]), shell("b", needs=["a"])), "tasks: they need each other in a circle: "),
    (job(shell("a", when="failure")), "tasks[0].when: it can never run"),
    (job(shell("a"), shell("b", when="failure", needs=[])), "tasks[1].when: it can never run"),
    (job(shell("a"), shell("b", when="always"), shell("c")), "tasks[2].needs: is missing: the task before it, 'b'"),
    # triggers
    (job(triggers=[{"type": "gitub"}]), "triggers[0].type: there is no type of trigger 'gitub'; did you mean 'github'?"),
    (job(triggers=[{"type": "github", "repo": "x"}]), "triggers[0].repository: is missing"),
    (job(triggers=[{"type": "git-poll", "repository": "-x"}]), 'triggers[0].repository: "-x" is not allowed here'),
    (job(triggers=[{"type": "job", "job": "team/hello"}]), "triggers[0].job: the job would start itself"),
    (job(triggers=[{"type": "job", "job": "a//b"}]), "triggers[0].job: job id 'a//b'"),
    (job(triggers=[{"type": "job", "job": "b", "parameters": {"X": "1"}}]), "triggers[0].parameters.X: job team/hello has"),
    (job(triggers=[{"type": "github", "repository": "hello"}]), "triggers[0].repository: 'hello' is neither owner/name nor a URL"),
    (job(triggers=[{"type": "gitlab", "repository": "https://"}]), "triggers[0].repository: 'https://' is neither"),
    (job(triggers=[{"type": "github", "repository": "a/b", "branch": ["x"]}]), "triggers[0].branch: unknown key; did you mean 'branches'?"),
    (job(triggers=[{"type": "gitea", "repository": "a/b", "events": []}]), "triggers[0].events: "),
    (job(triggers=[{"type": "github", "repository": "a/b", "parameters": {"X": "1"}}]), "triggers[0].parameters.X: job team/hello has"),
    (job(triggers=[{"type": "acme.mail", "repo": "a/b"}]), "triggers[0].repository: is missing"),
    (job(concurrency={"group": "a", "policy": "wait"}), "concurrency.policy: "),
    (job(concurrency={"limit": 0}), "concurrency.limit: "),
    (job(shell(resources=[""])), "tasks[0].resources[0]: "),
    (job(shell(resources=[{"limit": 2}])), "tasks[0].resources[0].name: is missing"),
    (job(shell(resources=[{"name": "a", "most": 2}])), "tasks[0].resources[0].most: unknown key"),
    (job(shell(resources=["a", {"name": "a", "limit": 2}])), "tasks[0].resources: 'a' is there twice"),
    (
        job(shell(isolation={"type": "host", "services": [{"name": "db", "image": "postgres"}]})),
        'tasks[0].isolation.services: is for containers alone; say "type": "container"',
    ),
    (
        job(shell(isolation={"image": "tools", "credentials": "PULL"})),
        "tasks[0].isolation.credentials: is for containers alone",
    ),
    (job(shell(isolation={"type": "vm"})), "tasks[0].isolation.image: is missing"),
    (job(shell(isolation={"type": "container"})), "tasks[0].isolation.image: is missing"),
    (job(shell(isolation={"type": "host", "image": "a"})), "tasks[0].isolation.image: host has the machine's own files"),
    (job(shell(isolation={"type": "sandbox", "image": "a"})), "tasks[0].isolation.image: sandbox has the machine's own files"),
    (job(shell(isolation={"type": "lxc", "image": "../x"})), "tasks[0].isolation.image: '../x' is no name of a folder"),
    (job(shell(isolation={"type": "host", "network": False})), "tasks[0].isolation.network: cannot be taken"),
    (job(shell(isolation={"type": "host", "read_only": True})), "tasks[0].isolation.read_only: the host's root"),
    (
        job(shell(isolation={"type": "container", "services": [{"name": "db", "image": "a"}, {"name": "db", "image": "b"}]})),
        "tasks[0].isolation.services: 'db' is there twice",
    ),
    (
        job(shell(isolation={"type": "container", "services": [{"name": "DB", "image": "a"}]})),
        "tasks[0].isolation.services[0].name: ",
    ),
    (
        job(shell(caches=[{"name": "a", "path": "a"}, {"name": "a", "path": "b"}])),
        "tasks[0].caches: 'a' is there twice",
    ),
    (job(shell(caches=[{"name": "a"}])), "tasks[0].caches[0].path: is missing"),
    (job(retention={"builds": 0}), "retention.builds: "),
    (job(definition={"path": "x"}), "definition: "),
    ({"job": "a", "definition": {"path": "../x", "repository": "/x"}}, "definition.path: "),
    ({"job": "a", "definition": {"path": "x"}}, "definition.repository: is missing"),
    ({"job": "a"}, "tasks: is missing"),
    (
        job(shell(script_from={"repository": "/x", "commit": "1" * 40, "path": "a"})),
        "tasks[0].script_from: stands in place of `script`",
    ),
    (
        job({"name": "t", "type": "shell", "script_from": {"repository": "/x", "commit": "main", "path": "a"}}),
        "tasks[0].script_from.commit: ",
    ),
    (job(parameters={"N": {"type": "integer", "default": "x"}}), "parameters.N.default: 'x' is not a whole number"),
    (job(parameters={"N": {"type": "integer", "default": "9", "maximum": 5}}), "parameters.N.default: 9 is more than 5"),
    (job(parameters={"N": {"type": "integer", "choices": ["1", "a"]}}), "parameters.N.choices[1]: 'a' is not a whole"),
    (job(parameters={"N": {"type": "boolean", "default": "yes"}}), "parameters.N.default: 'yes' is neither true nor"),
    (job(parameters={"N": {"minimum": 1}}), "parameters.N.minimum: is for type integer, not for text"),
    (job(parameters={"N": {"type": "bool"}}), "parameters.N.type: "),
]  # fmt: skip


@pytest.mark.parametrize(("document", "told"), WRONG, ids=[told for _, told in WRONG])
def test_a_wrong_job_is_refused_with_the_place_and_a_hint(document: Json, told: str) -> None:
    assert any(problem.startswith(told) for problem in problems(document)), problems(document)


def test_what_is_allowed_is_told_once() -> None:
    assert problems(job(shell(when="x"))) == ('tasks[0].when: "x" is not one of: success, failure, always',)


def test_all_problems_are_told_at_once_each_with_its_place() -> None:
    told = problems(
        job(
            shell("a", scirpt="x", needs=["b"], timeout="soon"),
            shell("b", needs=["a"], directory="/"),
            environment={"CI": "no"},
            triggers=[{"type": "cron"}, {"type": "job", "job": "team/hello"}],
        )
    )
    places = [problem.partition(": ")[0] for problem in told]
    assert sorted(places) == sorted(
        [
            "tasks[0].scirpt",
            "tasks[0].timeout",
            "tasks[1].directory",
            "tasks",
            "environment.CI",
            "triggers[0].schedule",
            "triggers[1].job",
        ]
    )


@pytest.mark.parametrize("depth", [100, 5000])
def test_a_deep_document_is_refused_and_breaks_nothing(depth: int) -> None:
    deep: Json = {}
    for _ in range(depth):
        deep = {"x": deep}
    assert "deeper than 64" in problems(job(shell(isolation=deep)))[0]


# Kinds of others


class Deploy:
    kind = "deploy"
    schema = {  # noqa: RUF012
        "required": ["target"],
        "properties": {"target": {"type": "string", "description": "Where to."}},
    }


@pytest.fixture
def _deploy_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("deploy", f"{__name__}:Deploy", WORKERS)
    broken = EntryPoint("broken", "no_such_module_anywhere:Worker", WORKERS)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point, broken])
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])


@pytest.mark.usefixtures("_deploy_installed")
def test_the_keys_of_an_installed_kind_are_checked() -> None:
    assert job_from_json(job({"name": "d", "type": "deploy", "target": "x"})).tasks[0].type == "deploy"
    assert problems(job({"name": "d", "type": "deploy", "traget": "x"})) == (
        "tasks[0].target: is missing",
        "tasks[0].traget: unknown key; did you mean 'target'?",
    )


@pytest.mark.usefixtures("_deploy_installed")
def test_a_kind_that_cannot_be_loaded_is_a_problem_of_its_task_alone() -> None:
    assert problems(job({"name": "d", "type": "broken"}))[0].startswith(
        "tasks[0].type: the package that brings 'broken' cannot be loaded"
    )


def test_a_kind_with_a_dot_may_be_planned_where_it_is_not_installed_and_a_warning_says_so() -> None:
    document = job({"name": "d", "type": "org.example.deploy", "target": "x"})
    assert job_from_json(document).tasks[0].arguments == {"target": "x"}
    assert warnings_for(document) == [
        "tasks[0].type: org.example.deploy is not installed here; its own keys are not checked"
    ]


# What is accepted, but not acted on


@pytest.mark.parametrize(
    ("document", "place"),
    [
        (job(retention={"days": 9}), "retention"),
        (job(triggers=[{"type": "cron", "schedule": "0 3 * * *"}]), "triggers[0]"),
        (job(shell(reuse=True)), "tasks[0].reuse"),
    ],
    ids=str,
)
def test_a_key_that_nothing_acts_on_yet_is_named(document: dict[str, Json], place: str) -> None:
    job_from_json(document)
    assert [warning.partition(": ")[0] for warning in warnings_for(document)] == [place]


def test_a_job_that_is_wholly_acted_on_has_no_warnings() -> None:
    tasks = [shell(isolation={"type": "host"}, resources=["board"])]
    triggers = [{"type": "job", "job": "b"}, {"type": "github", "repository": "org/hello"}]
    assert warnings_for(job(*tasks, triggers=triggers, concurrency={})) == []


# Triggers by what receivers are told


def test_a_trigger_of_a_receiver_is_for_pushes_unless_it_says_otherwise() -> None:
    told = {"type": "github", "repository": "org/hello"}
    more = {"events": ["tag"], "branches": ["a"], "tags": ["b"], "paths": ["c"], "parameters": {}}
    read = job_from_json(job(triggers=[told, {"type": "job", "job": "b"}, {**told, **more}]))
    assert read.hooks == (
        HookTrigger("github", "org/hello"),
        HookTrigger("github", "org/hello", ("tag",), ("a",), ("b",), ("c",)),
    )
    assert [trigger.job for trigger in read.triggers] == ["b"]


def test_a_receiver_with_a_dot_may_be_named_where_it_is_not_installed() -> None:
    read = job_from_json(job(triggers=[{"type": "acme.mail", "repository": "org/hello"}]))
    assert read.hooks[0].receiver == "acme.mail"


def test_a_group_is_the_jobs_own_unless_it_says_another() -> None:
    assert job_from_json(job(concurrency={})).concurrency == Concurrency("team/hello", 1, Policy.QUEUE)
    shared = {"group": "boards", "limit": 2, "policy": "keep-latest"}
    assert job_from_json(job(concurrency=shared)).concurrency == Concurrency("boards", 2, Policy.KEEP_LATEST)


def test_a_resource_is_a_name_or_a_name_and_a_limit_with_the_matrix_filled_in() -> None:
    tasks = [shell("t", resources=["board", {"name": "rig-{v}", "limit": 2}], matrix={"v": ["1"]})]
    made = plan.expand(job_from_json(job(*tasks, concurrency={})), BuildId("team/hello", 1), 1, Trigger())
    assert made.task("t[1]").resources == (Permit("board", 1), Permit("rig-1", 2))
    assert plan_from_bytes(plan_to_bytes(made)) == made


# The schema


def test_the_keys_common_to_all_tasks_are_those_of_the_schema() -> None:
    definitions = json.loads(files("distci.schemas").joinpath("job.json").read_text())["$defs"]
    assert definitions["task-other"]["properties"].keys() == COMMON_KEYS | {"reports"}
    assert {f"task-{kind}" for kind in BUILT_IN} < definitions.keys()


def test_importing_what_reads_jobs_does_not_import_jsonschema() -> None:
    code = "import sys, distci.documents.jobs; sys.exit('jsonschema' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("parameter", "good", "bad"),
    [
        ({"type": "integer", "minimum": -1, "maximum": 10}, ["-1", "0", "10"], ["-2", "11", "1.5", "", "007", "x"]),
        ({"type": "boolean"}, ["true", "false"], ["yes", "True", "1", ""]),
        ({"type": "text"}, ["", "yes", "größer"], ["a\0b"]),
        ({"choices": ["fast", "full"]}, ["fast", "full"], ["fats", ""]),
        ({"type": "integer", "choices": ["1", "2"]}, ["2"], ["3"]),
    ],
)
def test_a_value_is_of_its_parameters_type(parameter: dict[str, Json], good: list[str], bad: list[str]) -> None:
    document = job_from_json(job(parameters={"P": parameter}))
    assert [value for value in [*good, *bad] if not plan.value_problem(document, "P", value)] == good


@pytest.mark.parametrize(("kind", "default"), [("integer", "0"), ("boolean", "false"), ("text", "")])
def test_a_parameter_without_a_default_has_that_of_its_type(kind: str, default: str) -> None:
    document = job_from_json(job(parameters={"P": {"type": kind}}))
    assert document.parameters["P"].default == default


def test_a_job_whose_tasks_are_in_a_repository_has_the_one_that_reads_them() -> None:
    trigger = {"type": "github", "repository": "https://git.example.org/hello.git"}
    definition = {"path": ".distci.yaml", "ref": "main", "secrets": ["TOKEN"]}
    made = job_from_json({"job": "a", "triggers": [trigger], "definition": definition})
    assert [(task.name, task.type, task.secrets) for task in made.tasks] == [("definition", "definition", ("TOKEN",))]
    assert made.tasks[0].arguments == {
        "path": ".distci.yaml",
        "ref": "main",
        "repository": "https://git.example.org/hello.git",
    }
