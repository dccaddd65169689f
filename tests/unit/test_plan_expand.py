"""What a job becomes for one build."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import pytest

from distci import plan
from distci.documents.jobs import job_from_json
from distci.documents.stored import plan_to_bytes
from distci.errors import InvalidJob
from distci.model import BuildId, Job, Json, Plan, TaskDefinition, Trigger, When

BUILD = BuildId("team/hello", 7)


def shell(name: str, **keys: Json) -> dict[str, Json]:
    return {"name": name, "type": "shell", "script": "true", **keys}


def expand(*tasks: Mapping[str, Json], trigger: Trigger | None = None, **keys: Json) -> Plan:
    job = job_from_json({"job": "team/hello", "tasks": list(tasks), **keys})
    return plan.expand(job, BUILD, 3, trigger or Trigger())


def needs(made: Plan) -> dict[str, tuple[str, ...]]:
    return {task.name: tuple(task.needs) for task in made.tasks}


def test_a_task_needs_the_one_before_it_unless_it_says_otherwise() -> None:
    made = expand(shell("a"), shell("b"), shell("c", needs=[]), shell("d", needs=["a", "c"]))
    assert needs(made) == {"a": (), "b": ("a",), "c": (), "d": ("a", "c")}


@pytest.mark.parametrize("when", ["failure", "always"])
def test_a_reaction_without_needs_waits_for_all_tasks_before_it(when: str) -> None:
    made = expand(shell("a"), shell("b", needs=[]), shell("tell", when=when))
    assert needs(made)["tell"] == ("a", "b")


def test_tasks_come_after_what_they_need_and_otherwise_in_the_jobs_order() -> None:
    made = expand(shell("z", needs=["a"]), shell("m", needs=[]), shell("a", needs=[]), shell("b", needs=[]))
    assert [task.name for task in made.tasks] == ["m", "a", "z", "b"]


STAGES = ["build", "test", "publish"]


def staged(*tasks: Mapping[str, Json], trigger: Trigger | None = None) -> dict[str, tuple[str, ...]]:
    return needs(expand(*tasks, stages=STAGES, trigger=trigger))


def test_a_stage_comes_after_all_that_is_in_the_one_before_whatever_the_order_of_the_tasks() -> None:
    made = staged(
        shell("wheel", stage="publish"),
        shell("unit", stage="test", matrix={"v": ["1", "2"]}),
        shell("compile", stage="build"),
        shell("docs", stage="build"),
        shell("style", stage="test", needs=[]),
    )
    compiled = ("compile", "docs")
    assert made == {
        "compile": (),
        "docs": (),
        "style": (),
        "unit[1]": compiled,
        "unit[2]": compiled,
        "wheel": ("unit[1]", "unit[2]", "style"),
    }


def test_a_stage_without_tasks_or_with_reactions_alone_is_passed_over() -> None:
    tell = shell("tell", stage="test", when="failure")
    assert staged(shell("a", stage="build"), shell("b", stage="publish"))["b"] == ("a",)
    assert staged(shell("a", stage="build"), tell, shell("b", stage="publish"))["b"] == ("a",)


def test_a_reaction_goes_by_all_stages_before_its_own() -> None:
    made = staged(
        shell("a", stage="build"),
        shell("b", stage="test"),
        shell("clean", stage="publish", when="always"),
        shell("c", stage="publish"),
    )
    assert made["clean"] == ("a", "b")


def test_what_its_filter_leaves_out_of_a_build_is_in_no_stage_of_it() -> None:
    slow = shell("slow", stage="test", **{"if": {"branches": ["main"]}})
    tasks = (shell("a", stage="build"), slow, shell("b", stage="publish"), shell("c", stage="publish", when="failure"))
    assert staged(*tasks)["b"] == ("a",)
    assert staged(*tasks, trigger=Trigger(ref="refs/heads/main"))["b"] == ("slow",)
    assert staged(*tasks)["c"] == ("a",)


@pytest.mark.parametrize(
    ("tasks", "stages", "problem"),
    [
        ([shell("a")], STAGES, "tasks[0].stage: is missing; the job's stages are: build, test, publish"),
        ([shell("a", stage="tset")], STAGES, "tasks[0].stage: there is no stage 'tset'; did you mean 'test'?"),
        (
            [shell("a", stage="build")],
            None,
            "tasks[0].stage: the job has no `stages`, which would say in what order they come",
        ),
        (
            [shell("a", stage="build", when="failure")],
            STAGES,
            "tasks[0].when: it can never run: it waits for a failure, but there is no task that it needs",
        ),
    ],
)
def test_a_stage_that_cannot_be_meant_is_refused(
    tasks: list[dict[str, Json]], stages: list[str] | None, problem: str
) -> None:
    with pytest.raises(InvalidJob) as refused:
        job_from_json({"job": "team/hello", "tasks": tasks} | ({"stages": stages} if stages else {}))
    assert refused.value.problems == (problem,)


def test_a_matrix_is_named_by_its_values_in_axis_order() -> None:
    made = expand(shell("test", matrix={"python": ["3.11", "3.12"], "label": ["arch=amd64", "arch=arm64"]}))
    assert [task.name for task in made.tasks] == [
        "test[3.11,arch=amd64]",
        "test[3.11,arch=arm64]",
        "test[3.12,arch=amd64]",
        "test[3.12,arch=arm64]",
    ]


def test_needing_a_matrix_task_means_all_that_it_expands_to() -> None:
    made = expand(shell("t", matrix={"v": ["1", "2"]}), shell("next"), shell("one", needs=["t[2]"]))
    assert needs(made)["next"] == ("t[1]", "t[2]")
    assert needs(made)["one"] == ("t[2]",)


def test_exclude_takes_combinations_away_and_include_adds_some() -> None:
    matrix = {"v": ["1", "2"], "w": ["x", "y"], "exclude": [{"v": "1", "w": "y"}], "include": [{"w": "z", "v": "9"}]}
    made = expand(shell("t", matrix=matrix))
    assert [task.name for task in made.tasks] == ["t[1,x]", "t[2,x]", "t[2,y]", "t[9,z]"]


def test_the_label_axis_is_asked_of_the_worker() -> None:
    made = expand(shell("t", labels=["os=linux"], matrix={"label": ["arch=amd64"]}))
    assert made.tasks[0].labels == ("os=linux", "arch=amd64")


def test_axis_values_are_filled_into_every_string_that_the_job_says() -> None:
    made = expand(
        shell(
            "t",
            script="run {v}",
            directory="d/{v}",
            labels=["v={v}"],
            environment={"E": "<{v}>"},
            isolation={"type": "container", "image": "i:{v}"},
            matrix={"v": ["1"]},
        ),
        environment={"J": "j{v}"},
    )
    task = made.tasks[0]
    assert task.arguments == {"script": "run 1", "directory": "d/1"}
    assert task.labels == ("v=1",)
    assert task.isolation["image"] == "i:1"
    assert task.environment == {"E": "<1>", "J": "j1", "v": "1"}


@pytest.mark.parametrize("text", ["${v}", "{w}", "{ v }", "{}", "awk '{print $1}'", "{v", "{{x}}"])
def test_other_braces_are_left_alone(text: str) -> None:
    made = expand(shell("t", script=text, matrix={"v": ["1"]}))
    assert made.tasks[0].arguments["script"] == text


def test_without_a_matrix_nothing_is_filled_in() -> None:
    assert expand(shell("t", script="{v}"), parameters={"v": {}}).tasks[0].arguments["script"] == "{v}"


def test_what_people_give_is_taken_letter_for_letter() -> None:
    made = expand(
        shell("t", script="{v}", matrix={"v": ["1"]}), parameters={"P": {}}, trigger=Trigger(parameters={"P": "{v}"})
    )
    assert made.tasks[0].environment["P"] == "{v}"


def test_a_filled_in_value_is_the_axis_own_even_where_a_person_overrides_the_variable() -> None:
    made = expand(
        shell("t", script="{v}", matrix={"v": ["1"]}), parameters={"v": {}}, trigger=Trigger(parameters={"v": "$(x)"})
    )
    assert made.tasks[0].arguments["script"] == "1"
    assert made.tasks[0].environment["v"] == "$(x)"


@pytest.mark.parametrize("sources", list(product([False, True], repeat=4)))
def test_the_strongest_source_of_a_parameter_wins(sources: tuple[bool, bool, bool, bool]) -> None:
    # Given any subset of the sources, the weakest first
    in_job, in_trigger, in_matrix, by_person = sources
    made = expand(
        shell("t", **({"matrix": {"LEVEL": ["matrix"]}} if in_matrix else {})),
        parameters={"LEVEL": {"default": "job"} if in_job else {}},
        trigger=Trigger(
            presets={"LEVEL": "trigger"} if in_trigger else {}, parameters={"LEVEL": "person"} if by_person else {}
        ),
    )
    # Then the last of them counts
    given = [name for name, is_given in zip(("job", "trigger", "matrix", "person"), sources, strict=True) if is_given]
    assert made.tasks[0].environment["LEVEL"] == (given[-1] if given else "")


def test_variables_of_a_task_win_over_those_of_the_job() -> None:
    made = expand(shell("t", environment={"A": "task"}), environment={"A": "job", "B": "job"})
    assert made.tasks[0].environment == {"A": "task", "B": "job"}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (
            {"NEED": "x", "LEVLE": "fast"},
            "parameters.LEVLE: job team/hello has no such parameter; did you mean 'LEVEL'?",
        ),
        ({"NEED": "x", "LEVEL": "slow"}, "parameters.LEVEL: 'slow' is not one of: fast, full"),
        ({}, "parameters.NEED: a value is required"),
        ({"NEED": "a\0b"}, "parameters.NEED: has a NUL in it"),
        ({"NEED": "\ud800"}, "parameters.NEED: has half a surrogate pair in it"),
        ({"NEED": "x" * 3000}, "parameters: 3004 bytes of values; at most 2048 can be given"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(given: Mapping[str, str], problem: str) -> None:
    declared = {"LEVEL": {"default": "fast", "choices": ["fast", "full"]}, "NEED": {"required": True}}
    with pytest.raises(InvalidJob) as refused:
        expand(shell("t"), parameters=declared, trigger=Trigger(parameters=given))
    assert refused.value.problems == (problem,)


def test_all_wrong_parameters_are_told_at_once() -> None:
    with pytest.raises(InvalidJob) as refused:
        expand(shell("t"), parameters={"A": {"required": True}}, trigger=Trigger(parameters={"B": "", "C": ""}))
    assert len(refused.value.problems) == 3


def test_a_retry_of_a_task_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidJob, match="only: there is no task 'tset'; did you mean 'test'"):
        expand(shell("test"), trigger=Trigger("retry", retry_of=BUILD, only=["tset"]))


def test_a_job_without_tasks_is_refused_and_never_passes() -> None:
    with pytest.raises(InvalidJob, match="nothing to run"):
        plan.expand(Job("a", ()), BUILD, 1, Trigger())


@pytest.mark.parametrize(
    "tasks",
    [
        [TaskDefinition("a", "shell", needs=("a",))],
        [TaskDefinition("a", "shell"), TaskDefinition("a", "shell")],
        [TaskDefinition("a", "shell", needs=("b",))],
        [TaskDefinition("a", "shell", when=When.FAILURE)],
    ],
)
def test_a_job_that_never_was_a_document_is_checked_as_well(tasks: list[TaskDefinition]) -> None:
    with pytest.raises(InvalidJob):
        plan.expand(Job("a", tasks), BUILD, 1, Trigger())


def test_equal_jobs_and_triggers_give_equal_bytes() -> None:
    def made() -> bytes:
        return plan_to_bytes(expand(shell("t", matrix={"v": ["1", "2"]}), shell("u")))

    assert made() == made()
