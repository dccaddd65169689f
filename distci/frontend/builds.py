"""Builds, from their trigger to their record, and their tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distci.access import Action, is_among
from distci.builds import BuildView
from distci.errors import Forbidden
from distci.frontend.endpoint import CURSOR, ROOT, Answer, Call, Endpoint, Parameter, Returns, limit
from distci.frontend.hiding import hidden
from distci.frontend.paging import number_of, page, page_through
from distci.model import BuildId

LISTED = 20
LOOKED_THROUGH_MAX = 100
"""How many builds one request looks through for those that hold a text: each is read from the store."""

BUILD = "/jobs/{job}/-/builds/{number}"

IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[ -~]+$"},
    "What made you ask: asked again for this job with the same key within a day, it is the same build.",
    place="header",
)


def trigger_build(call: Call) -> Answer:
    given = call.body or {}
    started = call.system.builds.trigger(
        call.job,
        given.get("parameters", {}),
        commit=given.get("commit", ""),
        ref=given.get("ref", ""),
        cause=call.headers.get("idempotency-key", ""),
        actor=call.actor,
    )
    return _started(started)


def list_builds(call: Call) -> Answer:
    job, before = call.job, number_of(call.query["cursor"])
    builds = call.system.builds.list(job, before=before)
    text = call.query["text"].lower()
    answer = _holding(call, builds, text) if text else page(call, builds, lambda view: str(view.id.number))
    if not answer.body["items"]:
        # A job that there never was is an error, one that was not built yet is not.
        next(call.system.jobs.history(job))
    return answer


def _holding(call: Call, builds: Iterator[BuildView], text: str) -> Answer:
    """A page of the builds that hold a text; it may be empty and have a next one."""
    may_read = call.may_read

    def holds(view: BuildView) -> bool:
        told = view.trigger
        words = (f"#{view.id.number}", view.state, view.reason, told.kind, told.actor, told.ref, told.commit)
        # Else whoever searches would find out what they are not shown.
        return text in "\n".join(hidden(words, may_read)).lower()

    return page_through(call, builds, lambda view: str(view.id.number), holds, LOOKED_THROUGH_MAX)


def get_build(call: Call) -> Answer:
    return Answer(call.system.builds.get(call.build))


def cancel_build(call: Call) -> Answer:
    build = call.build
    by = f"cancelled by {call.actor}" if call.actor else "cancelled"
    call.system.builds.cancel(build, (call.body or {}).get("reason") or by)
    return Answer(call.system.builds.get(build))


def decide_task(call: Call) -> Answer:
    build, task, given = call.build, call.path["task"], call.body
    approvers = call.system.builds.approvers(build, task)
    if not is_among(call.principal, approvers):
        raise Forbidden(f"{call.actor} may not decide of task {task} of {build}: that is for {', '.join(approvers)}")
    return Answer(call.system.builds.decide(build, task, given["approve"], given.get("reason", ""), actor=call.actor))


def retry_build(call: Call) -> Answer:
    only_failed = (call.body or {}).get("only_failed", False)
    cause = call.headers.get("idempotency-key", "")
    return _started(call.system.builds.retry(call.build, only_failed=only_failed, actor=call.actor, cause=cause))


def list_tasks(call: Call) -> Answer:
    tasks = call.system.builds.get(call.build).tasks
    after = call.query["cursor"]
    names = [task.name for task in tasks]
    start = names.index(after) + 1 if after in names else 0
    return page(call, iter(tasks[start:]), lambda task: task.name)


def get_task(call: Call) -> Answer:
    return Answer(call.system.builds.get(call.build).task(call.path["task"]))


def address(build: BuildId) -> str:
    """The path of a build."""
    return f"{ROOT}/jobs/{build.job}/-/builds/{build.number}"


def _started(build: BuildId) -> Answer:
    return Answer({"id": build}, 201, {"Location": address(build)})


STARTED = {201: Returns("It has been accepted, and will run.", "build-started", headers=("Location",))}

ENDPOINTS: Sequence[Endpoint] = (
    Endpoint(
        "GET",
        "/jobs/{job}/-/builds",
        "list_builds",
        "List a job's builds, the newest first",
        list_builds,
        Action.READ,
        {
            200: Returns(
                "A page of builds; with `text`, it may be empty and have a next one.",
                "build-page",
                headers=("ETag", "Link"),
            )
        },
        (
            Parameter(
                "text",
                {"type": "string", "default": "", "maxLength": 128},
                "Only those whose number, state, reason, cause, starter, ref or commit holds this, be it small or large.",
            ),
            limit(LISTED, 200),
            CURSOR,
        ),
    ),
    Endpoint(
        "POST",
        "/jobs/{job}/-/builds",
        "trigger_build",
        "Start a build",
        trigger_build,
        Action.TRIGGER,
        STARTED,
        (IDEMPOTENCY_KEY,),
        body="trigger",
        is_body_optional=True,
    ),
    Endpoint(
        "GET",
        BUILD,
        "get_build",
        "Read a build and its tasks as they stand",
        get_build,
        Action.READ,
        {200: Returns("The build.", "build", headers=("ETag",))},
    ),
    Endpoint(
        "POST",
        f"{BUILD}/cancel",
        "cancel_build",
        "Ask a build to end",
        cancel_build,
        Action.TRIGGER,
        {200: Returns("What waits has ended, what runs is being stopped.", "build")},
        body="cancel",
        is_body_optional=True,
    ),
    Endpoint(
        "POST",
        f"{BUILD}/tasks/{{task}}/decision",
        "decide_task",
        "Approve or refuse what a task waits for",
        decide_task,
        Action.TRIGGER,
        {200: Returns("The task as it then stands.", "task")},
        body="decision",
    ),
    Endpoint(
        "POST",
        f"{BUILD}/retry",
        "retry_build",
        "Run a build that is over once more, as a new build",
        retry_build,
        Action.TRIGGER,
        STARTED,
        (IDEMPOTENCY_KEY,),
        body="retry",
        is_body_optional=True,
    ),
    Endpoint(
        "GET",
        f"{BUILD}/tasks",
        "list_tasks",
        "List the tasks of a build, in the order of the job",
        list_tasks,
        Action.READ,
        {200: Returns("A page of tasks.", "task-page", headers=("ETag", "Link"))},
        (limit(100), CURSOR),
    ),
    Endpoint(
        "GET",
        f"{BUILD}/tasks/{{task}}",
        "get_task",
        "Read a task as it stands",
        get_task,
        Action.READ,
        {200: Returns("The task.", "task", headers=("ETag",))},
    ),
)
