"""What GitHub and those who took after it have in common: pushes, pull requests, statuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from distci.model import Json, Result
from distci.receivers.commands import nothing, read_comment
from distci.receivers.port import Call, Change, Command, Ignored, Status
from distci.receivers.reading import Fields, changed_paths, is_no_commit

HEADS, TAGS = "refs/heads/", "refs/tags/"
BUILT_ACTIONS = ("opened", "reopened", "synchronize", "synchronized")
"""What happens to a pull request that leaves it with a commit which nobody has seen there before."""

DESCRIPTION_LENGTH_MAX = 140
STATES = {None: "pending", Result.PASSED: "success", Result.FAILED: "failure", Result.CANCELLED: "error"}


def read_push(delivery: str, body: Fields, paths: Sequence[str] | None) -> Change | Ignored:
    """A branch or a tag that was made, moved or deleted. ``paths`` as for a Change."""
    ref, after = body.text("ref"), body.text("after")
    if body.flag("deleted") or is_no_commit(after):
        return Ignored(delivery, "push", f"{ref} was deleted")
    kind = next((kind for kind in (HEADS, TAGS) if ref.startswith(kind)), "")
    if not kind:
        return Ignored(delivery, "push", f"{ref} is neither a branch nor a tag")
    repository = body.object("repository")
    before = body.text("before", "")
    # An annotated tag is an object of its own; what it is of stands beside it.
    head = body.object("head_commit") if "head_commit" in body else None
    commit = head.text("id") if head and kind == TAGS else after
    return Change(
        delivery=delivery,
        event="tag" if kind == TAGS else "push",
        repository=repository.text("full_name"),
        urls=urls(repository),
        ref=ref,
        commit=commit,
        branch=ref.removeprefix(HEADS) if kind == HEADS else "",
        tag=ref.removeprefix(TAGS) if kind == TAGS else "",
        before="" if is_no_commit(before) else before,
        paths=paths,
        actor=_actor(body),
        message=head.text("message", "") if head else "",
    )


def pushed_paths(body: Fields, total: int | None) -> Sequence[str] | None:
    """The files that a push has changed, where it names all of its commits; ``total`` is how many those are, where it is told."""
    commits = [*body.objects("commits")]
    if not commits or body.flag("forced") or (total is not None and total > len(commits)):
        return None
    return changed_paths(iter(commits))


def read_pull_request(delivery: str, body: Fields) -> Change | Ignored:
    """A pull request that was opened, or has got other commits; the commit is its head."""
    event, action, number = "pull_request", body.text("action"), body.number("number")
    if action not in BUILT_ACTIONS:
        return Ignored(delivery, event, f"pull request {number} was {action}, which leaves its commits as they were")
    request = body.object("pull_request")
    head, base = request.object("head"), request.object("base")
    repository = base.object("repo")
    # A fork that was deleted since has no repository any more.
    source = head.object("repo").text("full_name") if "repo" in head else ""
    return Change(
        delivery=delivery,
        event=event,
        repository=repository.text("full_name"),
        urls=urls(repository),
        ref=f"refs/pull/{number}/head",
        commit=head.text("sha"),
        branch=base.text("ref"),
        actor=_actor(body),
        pull_request=number,
        message=request.text("title", ""),
        is_trusted=source.lower() == repository.text("full_name").lower(),
    )


def read_issue_comment(delivery: str, body: Fields) -> Command | Ignored:
    """A comment; only one that was just made, on a pull request, can ask for something."""
    issue = body.object("issue")
    # Gitea says "is_pull" beside it; what came before it had that names the pull request in the issue, as GitHub does.
    if body.text("action") != "created" or not (body.flag("is_pull") or "pull_request" in issue):
        return nothing(delivery)
    repository, comment = body.object("repository"), body.object("comment")
    return read_comment(
        delivery,
        repository.text("full_name"),
        urls(repository),
        issue.number("number"),
        comment.object("user").text("login"),
        comment.text("body", ""),
    )


def urls(repository: Fields) -> list[str]:
    return [url for name in ("clone_url", "ssh_url", "git_url") if (url := repository.text(name, ""))]


def status_call(api_url: str, headers: Mapping[str, str], status: Status, page: str) -> Call:
    """A commit's status by the API of GitHub, which Gitea and Forgejo have too; ``page`` asks for as many statuses as one answer may have."""
    body = said(status, STATES, "context", DESCRIPTION_LENGTH_MAX)
    repository = f"{api_url.rstrip('/')}/repos/{quote(status.repository)}"
    return Call(
        url=f"{repository}/statuses/{status.commit}",
        headers=headers,
        body=body,
        shown_at=f"{repository}/commits/{status.commit}/status?{page}",
        is_shown_by=lambda shown: isinstance(shown, dict) and is_latest(body, "context", shown.get("statuses")),
    )


def said(status: Status, states: Mapping[Result | None, str], name: str, length_max: int) -> dict[str, Json]:
    """What a forge is told: its word for how a build stands, with the field ``name`` for the context, and a description as long as it takes one."""
    told: dict[str, Json] = {
        "state": states[status.result],
        name: status.context,
        "description": status.description[:length_max],
    }
    return told | ({"target_url": status.url} if status.url else {})


def is_latest(told: Mapping[str, Json], name: str, shown: Json) -> bool:
    """Whether the latest of a list of statuses, of those of the same context, says what was told; ``name`` is the field of the context."""
    items = [item for item in shown if isinstance(item, dict)] if isinstance(shown, list) else []
    mine = [item for item in items if item.get(name) == told[name] and isinstance(item.get("id"), int)]
    if not mine:
        return False
    latest = max(mine, key=lambda item: item["id"])
    state, description = latest.get("state") or latest.get("status"), latest.get("description")
    return (state, description) == (told["state"], told["description"])


def _actor(body: Fields) -> str:
    for key in ("sender", "pusher"):
        if key in body:
            who = body.object(key)
            return who.text("login", "") or who.text("username", "") or who.text("name", "")
    return ""
