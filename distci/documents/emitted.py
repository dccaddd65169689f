"""Tasks that a task of a build has defined: the text is checked as a job of its own is."""

from __future__ import annotations

from distci.documents.jobs import job_from_json
from distci.documents.validation import size_problems
from distci.documents.written import located, read_written
from distci.errors import InvalidJob
from distci.growth import grow
from distci.model import Json, Plan
from distci.plan import did_you_mean

KEYS = ("tasks", "stages", "environment", "format", "description", "$schema")


def grown(made: Plan, emitter: str, text: str, what: str, changed: tuple[str, ...] | None = None) -> Plan:
    """The plan with the tasks that a text defines; InvalidJob and InvalidDocument name all that is wrong, with line and column."""
    written = read_written(text, what)
    if isinstance(written.document, list):
        written = written.under("tasks")
    found: Json = written.document
    subject = f"{what}:"
    if not isinstance(found, dict):
        raise InvalidJob(subject, ["is neither a list of tasks nor an object with `tasks`"])
    unknown = [key for key in found if key not in KEYS]
    if unknown:
        problems = [f"{key}: cannot be said here{did_you_mean(key, KEYS)}" for key in unknown]
        raise InvalidJob(subject, located(problems, written))
    # What the task itself has of variables, those that it defines have, too.
    inherited = {name: value for name, value in made.task(emitter).environment.items() if name not in made.parameters}
    own = found.get("environment", {})
    document = {
        **found,
        "job": made.build.job,
        "parameters": {name: {"default": value} for name, value in made.parameters.items()},
        "environment": inherited | own if isinstance(own, dict) else own,
    }
    try:
        result = grow(made, emitter, job_from_json(document, emitter), changed)
        if problems := list(size_problems(result.tasks)):
            raise InvalidJob(subject, problems)
    except InvalidJob as error:
        raise InvalidJob(subject, located(error.problems, written)) from error
    return result
