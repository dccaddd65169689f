"""GitLab: https://docs.gitlab.com/user/project/integrations/webhook_events."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from urllib.parse import quote

from distci.model import Result
from distci.receivers.commands import nothing, read_comment
from distci.receivers.forge import HEADS, TAGS, is_latest, said
from distci.receivers.port import Call, Change, Command, Headers, Ignored, Status
from distci.receivers.reading import Fields, changed_paths, is_known, is_no_commit

BUILT_ACTIONS = ("open", "reopen", "update")
DESCRIPTION_LENGTH_MAX = 255
STATES = {None: "pending", Result.PASSED: "success", Result.FAILED: "failed", Result.CANCELLED: "canceled"}
KNOWN = ((400, "Cannot transition status"),)
"""What it says to a state that it has on record already, or that a later one has overtaken."""


class GitLab:
    """Pushes, tags, merge requests and comments on these; proved by the webhook's secret itself, which comes along."""

    name = "gitlab"
    api_url = "https://gitlab.com/api/v4"
    has_sealed_bodies = False

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[str]) -> bool:
        return is_known(headers.get("x-gitlab-token", ""), secrets)

    def read(self, headers: Headers, body: bytes) -> Change | Command | Ignored:
        # Older ones give no name to what they send; sent again, it has the same bytes.
        delivery = headers.get("idempotency-key") or hashlib.sha256(body).hexdigest()[:40]
        fields = Fields.of_body(headers, body)
        kind = fields.text("object_kind")
        match kind:
            case "push" | "tag_push":
                return _read_push(delivery, fields)
            case "merge_request":
                return _read_merge_request(delivery, fields)
            case "note":
                return _read_note(delivery, fields)
        return Ignored(delivery, kind, f"nothing is built for {kind}")

    def call(self, api_url: str, token: str, status: Status) -> Call | None:
        body = said(status, STATES, "name", DESCRIPTION_LENGTH_MAX)
        project = f"{api_url.rstrip('/')}/projects/{quote(status.repository, safe='')}"
        return Call(
            url=f"{project}/statuses/{status.commit}",
            headers={"PRIVATE-TOKEN": token},
            body=body,
            shown_at=f"{project}/repository/commits/{status.commit}/statuses?name={quote(status.context, safe='')}&per_page=100",
            is_shown_by=lambda shown: is_latest(body, "name", shown),
            is_done_by=KNOWN,
        )


def _read_push(delivery: str, body: Fields) -> Change | Ignored:
    ref, after, before = body.text("ref"), body.text("after"), body.text("before", "")
    is_tag = ref.startswith(TAGS)
    if is_no_commit(after):
        return Ignored(delivery, "push", f"{ref} was deleted")
    if not is_tag and not ref.startswith(HEADS):
        return Ignored(delivery, "push", f"{ref} is neither a branch nor a tag")
    commits = [*body.objects("commits")]
    is_whole = 0 < len(commits) == body.number("total_commits_count", len(commits))
    message = next((item.text("message", "") for item in commits if item.text("id", "") == after), "")
    project = body.object("project")
    return Change(
        delivery=delivery,
        event="tag" if is_tag else "push",
        repository=project.text("path_with_namespace"),
        urls=_urls(project),
        ref=ref,
        # An annotated tag is an object of its own; this is what it is of.
        commit=body.text("checkout_sha", after),
        branch="" if is_tag else ref.removeprefix(HEADS),
        tag=ref.removeprefix(TAGS) if is_tag else "",
        before="" if is_no_commit(before) else before,
        paths=changed_paths(iter(commits)) if is_whole else None,
        actor=body.text("user_username", "") or body.text("user_name", ""),
        message=message,
    )


def _read_merge_request(delivery: str, body: Fields) -> Change | Ignored:
    event, request = "pull_request", body.object("object_attributes")
    number, action = request.number("iid"), request.text("action", "")
    if action not in BUILT_ACTIONS or (action == "update" and "oldrev" not in request):
        what = f"of {action}" if action else "without an action"
        return Ignored(delivery, event, f"merge request {number}: a message {what} leaves its commits as they were")
    source, target, last = request.object("source"), request.object("target"), request.object("last_commit")
    repository = target.text("path_with_namespace")
    is_same = source.text("path_with_namespace").lower() == repository.lower()
    return Change(
        delivery=delivery,
        event=event,
        repository=repository,
        urls=_urls(target),
        ref=f"refs/merge-requests/{number}/head",
        commit=last.text("id"),
        branch=request.text("target_branch"),
        actor=body.object("user").text("username", "") if "user" in body else "",
        pull_request=number,
        message=last.text("message", ""),
        is_trusted=is_same and request.number("source_project_id") == request.number("target_project_id"),
    )


def _read_note(delivery: str, body: Fields) -> Command | Ignored:
    note = body.object("object_attributes")
    # Older ones do not say what became of it: they tell of those that were made alone. What GitLab writes itself nobody has asked for.
    is_made = note.text("action", "create") == "create" and not note.flag("system")
    if not is_made or note.text("noteable_type") != "MergeRequest":
        return nothing(delivery)
    project = body.object("project")
    return read_comment(
        delivery,
        project.text("path_with_namespace"),
        _urls(project),
        body.object("merge_request").number("iid"),
        body.object("user").text("username"),
        note.text("note", ""),
    )


def _urls(project: Fields) -> list[str]:
    return [url for name in ("git_http_url", "git_ssh_url") if (url := project.text(name, ""))]
