"""Plans that grow: tasks that a task of the build has defined when it passed. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from distci import plan
from distci.errors import InvalidJob
from distci.filters import Occasion
from distci.model import TASK_NAME_LENGTH_MAX, BuildState, Job, Plan, Progress, Task


def grow(made: Plan, emitter: str, job: Job, changed: Sequence[str] | None = None) -> Plan:
    """The plan with the tasks of ``job``, as the task ``emitter`` of it has defined them; InvalidJob names all that is wrong with them.

    They are called ``emitter:name``, so that no two tasks define the same, or by their names alone where the emitter is all there is. Whatever needs the emitter
    needs all of them, too.
    """
    occasion = Occasion.of(made.trigger, made.parameters, changed)
    found, told = plan.expand_tasks(job, made.parameters, made.trigger.parameters, occasion, root=emitter)
    prefix = f"{emitter}:" if len(made.tasks) > 1 else ""
    own = {task.name for task in found}
    problems = [*told, *_problems(made, emitter, found, prefix)]
    new = {
        f"{prefix}{task.name}": replace(
            task,
            name=f"{prefix}{task.name}",
            needs=tuple(f"{prefix}{need}" if need in own else need for need in task.needs),
            emitter=emitter,
        )
        for task in found
    }
    old = {
        task.name: replace(task, needs=(*task.needs, *new)) if emitter in task.needs else task for task in made.tasks
    }
    tasks = plan.ordered({**old, **new}, problems)
    if problems:
        raise InvalidJob(f"the tasks that {emitter} has defined:", problems)
    return replace(made, tasks=tasks)


def widened(state: BuildState, made: Plan) -> BuildState:
    """The state of a build whose plan has grown: what is new waits."""
    return replace(state, tasks={task.name: state.tasks.get(task.name, Progress()) for task in made.tasks})


def _problems(made: Plan, emitter: str, found: Sequence[Task], prefix: str) -> Iterator[str]:
    total = len(made.tasks) + len(found)
    if total > plan.TASKS_MAX:
        yield f"tasks: with these the build has {total} tasks; at most {plan.TASKS_MAX} are allowed"
    known = {task.name for task in made.tasks}
    allowed = {*made.task(emitter).named_secrets}
    for task in found:
        name = f"{prefix}{task.name}"
        if name in known:
            yield f"tasks: {name!r} is the name of another task already"
        if len(name) > TASK_NAME_LENGTH_MAX:
            yield f"tasks: the name {name!r} is longer than {TASK_NAME_LENGTH_MAX} characters"
        for secret in sorted({*task.named_secrets} - allowed):
            # Else whoever writes what a task runs would have any secret of the project.
            yield f"tasks: {task.name} names the secret {secret!r}, which {emitter} does not name itself"
