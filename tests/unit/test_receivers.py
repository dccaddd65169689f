"""What receivers make of what forges send: every recorded body, and what nobody should send."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from typing import Any

import deliveries
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distci import receivers, repositories
from distci.errors import InvalidDocument, NoSuchReceiver
from distci.model import Result
from distci.receivers.port import BODY_BYTES_MAX, Change, Command, Ignored, Status

HELLO, HEAD = "Codertocat/Hello-World", "ec26c3e57ca3a959ca5aad62de7213c562f8c821"
DIASPORA, AWESOME, EXAMPLE = "mike/diaspora", "awesome_space/awesome_project", "example/example"
FIRST = "6113728f27ae82c7b1a177c8d03f9e96e0adf246"
README = "da1560886d4f094c3e6c9ef40349f7d38b5d27d7"

# What is to be built: event, repository, ref, commit, branch or tag, files that have changed, pull request, whether it is trusted.
BUILT: dict[str, tuple[Any, ...]] = {
    "github/push-new-branch": ("push", HELLO, "refs/heads/master", FIRST, "master", ["README.md"], 0, True),
    "github/pull_request-opened": ("pull_request", HELLO, "refs/pull/2/head", HEAD, "master", None, 2, True),
    "github/pull_request-reopened": ("pull_request", HELLO, "refs/pull/2/head", HEAD, "master", None, 2, True),
    "github/pull_request-synchronize": ("pull_request", HELLO, "refs/pull/2/head", HEAD, "master", None, 2, True),
    "gitea/push-event": ("push", EXAMPLE, "refs/heads/master", "67b56589a45103f891bdee7c0546e5d40bc02001", "master", ["example"], 0, True),
    "gitea/pull-request-event": (
        "pull_request", EXAMPLE, "refs/pull/2/head", "48e773f892a831faa47c0a160d1b7f0cd369ae2a", "master", None, 2, False,
    ),
    # Two of its four commits are named, so nobody knows all that has changed.
    "gitlab/push-event": ("push", DIASPORA, "refs/heads/master", README, "master", None, 0, True),
    "gitlab/tag-event": ("tag", "jsmith/example", "refs/tags/v1.0.0", "82b3d5ae55f7080f1e6022629cdb57bfae7cccc7", "v1.0.0", None, 0, True),
    "gitlab/merge-request-event": ("pull_request", AWESOME, "refs/merge-requests/1/head", README, "master", None, 1, True),
}  # fmt: skip

IGNORED = {
    "github/push": "refs/tags/simple-tag was deleted",
    "github/push-1": "refs/tags/simple-tag was deleted",
    "github/create": "tag simple-tag: the push that comes beside it says more",
    "github/delete": "tag simple-tag: the push that comes beside it says more",
    "github/ping": "pong",
    "github/pull_request-closed": "pull request 2 was closed, which leaves its commits as they were",
    "github/pull_request-labeled": "pull request 2 was labeled, which leaves its commits as they were",
    "gitea/create-event": "branch master: the push that comes beside it says more",
    "gitea/delete-event": "branch example3: the push that comes beside it says more",
    "github/issue_comment-created": "nothing to do",
    "gitea/issue-comment-event": "nothing to do",
    "gitlab/note-event": "nothing to do",
}

ALL = sorted(f"{file.parent.name}/{file.stem}" for file in deliveries.RECORDED.glob("*/*.json"))


def read(name: str, change: Callable[[dict[str, Any]], None] | None = None) -> Change | Command | Ignored:
    body = deliveries.recorded(name, change)
    headers = {key.lower(): value for key, value in deliveries.headers(name, body).items()}
    return receivers.load(name.partition("/")[0]).read(headers, body)


def test_every_recorded_body_has_its_row() -> None:
    assert sorted([*BUILT, *IGNORED]) == ALL


@pytest.mark.parametrize("name", BUILT)
def test_a_recorded_change_is_read_as_what_it_is(name: str) -> None:
    event, repository, ref, commit, target, paths, number, is_trusted = BUILT[name]

    change = read(name)

    assert isinstance(change, Change)
    assert (change.event, change.repository, change.ref, change.commit) == (event, repository, ref, commit)
    assert (change.tag if event == "tag" else change.branch) == target
    assert change.paths == paths
    assert (change.pull_request, change.is_trusted, change.delivery) == (number, is_trusted, "delivery-1")
    assert any(address.endswith(f"/{repository.lower()}") for address in change.addresses)
    assert change.actor


@pytest.mark.parametrize("name", IGNORED)
def test_a_recorded_message_that_says_nothing_new_is_ignored_with_the_reason(name: str) -> None:
    ignored = read(name)

    assert isinstance(ignored, Ignored)
    assert ignored.reason == IGNORED[name]


@pytest.mark.parametrize("name", ALL)
def test_a_recorded_body_is_believed_from_those_who_know_the_secret_alone(name: str) -> None:
    receiver, body = receivers.load(name.partition("/")[0]), deliveries.recorded(name)
    headers = {key.lower(): value for key, value in deliveries.headers(name, body).items()}

    assert receiver.verify(headers, body, [deliveries.SECRET])
    assert receiver.verify(headers, body, ["new", deliveries.SECRET, "old"])
    assert not receiver.verify(headers, body, ["another"])
    assert not receiver.verify({}, body, [deliveries.SECRET])


@pytest.mark.parametrize("name", ["github/push", "gitea/push-event"])
def test_b10_a_signature_covers_the_body_byte_for_byte(name: str) -> None:
    receiver, body = receivers.load(name.partition("/")[0]), deliveries.recorded(name)
    headers = {key.lower(): value for key, value in deliveries.headers(name, body).items()}

    assert not receiver.verify(headers, body + b"\n", [deliveries.SECRET])
    assert not receiver.verify(headers, body[:-1], [deliveries.SECRET])
    assert receiver.has_sealed_bodies


@pytest.mark.parametrize(
    "signature", ["", "sha256=", "sha1=abc", "sha256=\N{SNOWMAN}", "sha256=" + "0" * 64, "x" * 100_000]
)
def test_a_signature_that_is_none_is_refused(signature: str) -> None:
    assert not receivers.load("github").verify({"x-hub-signature-256": signature}, b"{}", ["s"])
    assert not receivers.load("gitea").verify({"x-gitea-signature": signature}, b"{}", ["s"])
    assert not receivers.load("gitlab").verify({"x-gitlab-token": signature}, b"{}", ["s"])
    assert not receivers.load("directory").verify({"x-distci-signature": signature}, b"{}", ["s"])


# Variations of what was recorded


def deep(document: dict[str, Any], path: str, value: Any) -> None:
    *way, last = path.split(".")
    for key in way:
        document = document[key]
    document[last] = value


def changed(**fields: Any) -> Callable[[dict[str, Any]], None]:
    """Sets fields; ``__`` stands between keys that lie in each other."""

    def change(document: dict[str, Any]) -> None:
        for path, value in fields.items():
            deep(document, path.replace("__", "."), value)

    return change


def change_of(name: str, **fields: Any) -> Change:
    told = read(name, changed(**fields))
    assert isinstance(told, Change), told
    return told


def test_j03_a_push_of_many_commits_builds_the_last_of_them() -> None:
    commits = [{"id": str(number) * 40, "message": "x", "added": [str(number)]} for number in range(1, 5)]

    change = change_of("github/push-new-branch", after="4" * 40, commits=commits, before="0" * 40)

    assert change.commit == "4" * 40
    assert change.paths == ["1", "2", "3", "4"]


def test_an_annotated_tag_builds_the_commit_that_it_is_of() -> None:
    tag = {"ref": "refs/tags/v2", "after": "a" * 40}
    assert change_of("github/push-new-branch", **tag).commit == FIRST
    assert change_of("gitea/push-event", **tag).commit == "67b56589a45103f891bdee7c0546e5d40bc02001"
    assert change_of("gitlab/tag-event", **tag, checkout_sha="b" * 40).commit == "b" * 40


def test_d20_a_branch_with_slashes_that_is_not_the_default_is_built() -> None:
    for name in ("github/push-new-branch", "gitea/push-event", "gitlab/push-event"):
        change = change_of(name, ref="refs/heads/feature/x#1")
        assert (change.branch, change.ref) == ("feature/x#1", "refs/heads/feature/x#1")


@pytest.mark.parametrize(
    "name", ["github/push-new-branch", "gitea/push-event", "gitlab/push-event", "gitlab/tag-event"]
)
def test_what_was_deleted_is_not_built(name: str) -> None:
    told = read(name, changed(after="0" * 40, checkout_sha=None))
    assert isinstance(told, Ignored)
    assert told.reason.endswith("was deleted")


def test_files_are_told_only_where_all_of_them_are() -> None:
    assert change_of("github/push-new-branch", forced=True).paths is None
    assert change_of("github/push-new-branch", commits=[]).paths is None
    assert change_of("github/push-new-branch", commits=[{"id": FIRST, "added": ["a"]}] * 2048).paths is None
    assert change_of("gitea/push-event", total_commits=2).paths is None
    assert change_of("gitea/push-event", total_commits=1).paths == ["example"]
    assert change_of("gitlab/push-event", total_commits_count=2).paths == ["CHANGELOG", "app/controller/application.rb"]


def test_a_pull_request_of_a_fork_is_not_trusted() -> None:
    pull = "github/pull_request-opened"
    assert not change_of(pull, pull_request__head__repo__full_name="stranger/Hello-World").is_trusted
    assert not change_of(pull, pull_request__head__repo=None).is_trusted
    assert change_of(pull, pull_request__head__repo__full_name=HELLO.upper()).is_trusted
    merge = "gitlab/merge-request-event"
    assert not change_of(merge, object_attributes__source__path_with_namespace="stranger/x").is_trusted
    assert not change_of(merge, object_attributes__source_project_id=15).is_trusted


def test_a_merge_request_is_built_when_it_has_got_commits() -> None:
    merge = "gitlab/merge-request-event"
    for action in ("update", "close", "merge", "approved", ""):
        assert isinstance(read(merge, changed(object_attributes__action=action)), Ignored)
    assert change_of(merge, object_attributes__action="update", object_attributes__oldrev="a" * 40).commit == README


def test_older_gitlabs_give_no_id_so_that_the_body_is_its_own() -> None:
    receiver, body = receivers.load("gitlab"), deliveries.recorded("gitlab/push-event")
    first, again = (receiver.read({}, body) for _ in range(2))
    other = receiver.read({}, body + b" ")
    assert first.delivery == again.delivery != other.delivery


def test_a_form_is_read_as_the_json_in_it() -> None:
    from urllib.parse import urlencode

    body = urlencode({"payload": deliveries.recorded("github/push-new-branch")}).encode()
    headers = {
        "x-github-event": "push",
        "x-github-delivery": "d",
        "content-type": "application/x-www-form-urlencoded; charset=utf-8",
    }
    change = receivers.load("github").read(headers, body)
    assert isinstance(change, Change)
    assert change.commit == FIRST
    with pytest.raises(InvalidDocument, match="form without the field payload"):
        receivers.load("github").read(headers, b"a=b")


@pytest.mark.parametrize("event", ["star", "issues", "workflow_run", "\N{SNOWMAN}"])
def test_other_events_are_ignored(event: str) -> None:
    told = receivers.load("github").read({"x-github-event": event, "x-github-delivery": "d"}, b"{}")
    assert isinstance(told, Ignored)
    assert event in told.reason


# Hostile bodies

PUSH = "github/push-new-branch"
HOSTILE = [
    (changed(ref=7), "ref: is a number, not a text"),
    (changed(ref=None), "ref: is missing, not a text"),
    (changed(after=["x"]), "after: is a list, not a text"),
    (changed(after="HEAD"), "commit: 'HEAD' is not a commit with all of its digits"),
    (changed(after="--upload-pack=x"), "commit: "),
    (changed(after=FIRST.upper()), "commit: "),
    (changed(before="x"), "before: 'x' is not a commit"),
    (changed(ref="refs/heads/-x"), "ref: 'refs/heads/-x' is no name that git allows"),
    (changed(ref="refs/heads/a b"), "ref: "),
    (changed(ref="refs/heads/../../etc"), "ref: "),
    (changed(ref="refs/heads/"), "branch: '' is missing"),
    (changed(ref="refs/heads/a\nb"), "ref: "),
    (changed(ref="refs/heads/" + "x" * 300), "is longer than 255 characters"),
    (changed(repository=None), "repository: is missing, not an object"),
    (changed(repository=[]), "repository: is a list, not an object"),
    (changed(repository__full_name={}), "repository.full_name: is an object, not a text"),
    (changed(repository__full_name="../../etc"), "repository: '../../etc' is not owner/name"),
    (changed(repository__full_name="a/b?x=1"), "repository: "),
    (changed(repository__full_name="a/.."), "repository: "),
    (changed(repository__clone_url=1), "repository.clone_url: is a number, not a text"),
    (changed(deleted="no"), "deleted: is a text, neither true nor false"),
    (changed(commits="x"), "commits: is a text, not a list"),
    (changed(commits=[1]), "commits[0]: is a number, not an object"),
    (changed(commits=[{"added": [1]}]), "commits[0].added: is no list of texts"),
    (changed(head_commit=1), "head_commit: is a number, not an object"),
    (changed(sender=1), "sender: is a number, not an object"),
    (changed(sender__login=1), "sender.login: is a number, not a text"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "told"), HOSTILE, ids=[told for _, told in HOSTILE])
def test_a_body_of_wrong_types_is_refused_with_the_place(change: Callable[[dict[str, Any]], None], told: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        read(PUSH, change)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "line 1, column 1"),
        (b"\xff\xfe", "the body: "),
        (b"null", "the body: is missing, not an object"),
        (b"[]", "the body: is a list, not an object"),
        (b'{"ref": 1, "ref": 2}', "the key 'ref' is there twice"),
        (b'{"ref": NaN}', "NaN is not a number"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "the body: "),
        (b'{"a":' * 100 + b"1" + b"}" * 100, "nested deeper than 64 levels"),
        (b'{"ref": "\\ud800"}', "surrogates not allowed"),
        (b" " * (BODY_BYTES_MAX + 1), "bytes are too many"),
        (b'{"ref": ' + b"9" * 5000 + b"}", "the body: "),
    ],
    ids=["empty", "not UTF-8", "null", "list", "twice", "NaN", "deep", "too deep", "surrogate", "large", "long number"],
)
@pytest.mark.parametrize("receiver", ["github", "gitlab", "gitea", "directory"])
def test_a_body_that_is_no_strict_json_is_refused(receiver: str, body: bytes, told: str) -> None:
    headers = {
        **dict.fromkeys(("x-github-event", "x-gitea-event"), "push"),
        **dict.fromkeys(("x-github-delivery", "x-gitea-delivery", "x-distci-delivery", "idempotency-key"), "d"),
    }
    with pytest.raises(InvalidDocument) as caught:
        receivers.load(receiver).read(headers, body)
    assert told in str(caught.value)


@pytest.mark.parametrize("name", ["X-GitHub-Event", "X-GitHub-Delivery"])
def test_a_header_that_is_missing_is_named(name: str) -> None:
    headers = {"x-github-event": "push", "x-github-delivery": "d"}
    del headers[name.lower()]
    with pytest.raises(InvalidDocument, match=f"the header {name} is missing"):
        receivers.load("github").read(headers, b"{}")


SCALARS = st.none() | st.booleans() | st.integers() | st.text(string.printable, max_size=20)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


def paths_of(document: Any, way: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(document, dict):
        return [way]
    return [way, *(path for key, value in document.items() for path in paths_of(value, (*way, key)))][:400]


@pytest.mark.parametrize("name", [*BUILT, "github/create", "github/pull_request-closed"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_whatever_stands_in_any_place_of_a_body_it_is_read_or_refused(name: str, data: st.DataObject) -> None:
    document = json.loads(deliveries.recorded(name))
    path = data.draw(st.sampled_from(paths_of(document)))
    value = data.draw(VALUES)
    if path:
        inner = document
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
    else:
        document = value
    body = json.dumps(document).encode()
    headers = {key.lower(): text for key, text in deliveries.headers(name, body).items()}
    try:
        receivers.load(name.partition("/")[0]).read(headers, body)
    except InvalidDocument as error:
        assert str(error)


# The mail-drop

DROPPED = {
    "event": "push",
    "repository": "org/hello",
    "urls": ["/srv/git/hello.git"],
    "ref": "refs/heads/main",
    "branch": "main",
    "commit": "1" * 40,
}


def drop(**fields: Any) -> Change | Command | Ignored:
    return receivers.load("directory").read({"x-distci-delivery": "mail-1"}, json.dumps(DROPPED | fields).encode())


def test_a_file_says_what_a_change_holds() -> None:
    change = drop(paths=["a"], actor="ada", trusted=False, pull_request=3, message="m", before="2" * 40)
    assert change == Change(
        "mail-1", "push", "org/hello", ("/srv/git/hello.git",), "refs/heads/main", "1" * 40, "main", "", "2" * 40,
        ["a"], "ada", 3, "m", False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"comit": "x"}, "comit: unknown key"),
        ({"event": "deploy"}, "event: 'deploy' is none of push, tag, pull_request"),
        ({"branch": ""}, "branch: '' is missing"),
        ({"event": "tag"}, "tag: '' is missing"),
        ({"trusted": 1}, "trusted: is a number, neither true nor false"),
        ({"urls": "x"}, "urls: is no list of texts"),
        ({"pull_request": -1}, "pull_request: '-1' is not a number of one"),
        ({"pull_request": True}, "pull_request: is true or false, not a whole number"),
    ],
)
def test_a_file_that_says_something_else_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        drop(**fields)
    assert str(caught.value).startswith(told)


# Finding them, and what they say of statuses


def test_receivers_are_found_by_their_entry_points() -> None:
    assert {"directory", "gitea", "github", "gitlab"} <= {*receivers.installed()}
    for name in receivers.installed():
        assert receivers.load(name).name == name
    with pytest.raises(NoSuchReceiver, match="no receiver 'gitub' is installed; there are: "):
        receivers.load("gitub")


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("github", "https://forge/api/repos/org/hello/statuses/"),
        ("gitea", "https://forge/api/repos/org/hello/statuses/"),
        ("gitlab", "https://forge/api/projects/org%2Fhello/statuses/"),
    ],
)
def test_a_status_is_cut_to_what_the_forge_takes(name: str, url: str) -> None:
    status = Status("org/hello", "1" * 40, Result.FAILED, "distci/team/hello", "x" * 1000, "")

    call = receivers.load(name).call("https://forge/api/", "t0ken", status)

    assert call is not None
    assert call.url == f"{url}{'1' * 40}"
    assert len(call.body["description"]) <= 255
    assert "target_url" not in call.body
    assert any("t0ken" in value for value in call.headers.values())


SHOWN = {"id": 2, "context": "distci/team/hello", "name": "distci/team/hello", "description": "it failed"}


@pytest.mark.parametrize(
    ("shown", "is_shown"),
    [
        ([SHOWN], True),
        ([{**SHOWN, "id": 1, "state": "pending"}, SHOWN], True),
        ([SHOWN, {**SHOWN, "id": 1, "state": "pending"}, {**SHOWN, "id": 3, "context": "other", "name": "other"}], True),
        ([SHOWN, {**SHOWN, "id": 3, "description": "team/hello#2"}], False),
        ([{**SHOWN, "context": "other", "name": "other"}], False),
        ([{**SHOWN, "id": "2"}], False),
        ([], False),
        ([None, 1, "a"], False),
        (None, False),
        ("nonsense", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("name", "field", "state"), [("github", "state", "failure"), ("gitea", "status", "failure"), ("gitlab", "status", "failed")]
)  # fmt: skip
def test_a_forge_shows_a_status_when_it_is_the_latest_of_its_context(
    name: str, field: str, state: str, shown: Any, is_shown: bool
) -> None:
    status = Status("org/hello", "1" * 40, Result.FAILED, "distci/team/hello", "it failed", "")
    call = receivers.load(name).call("https://forge/api/", "t0ken", status)
    assert call is not None
    if isinstance(shown, list):
        shown = [{field: state, **item} if isinstance(item, dict) else item for item in shown]
        for item in shown:
            if isinstance(item, dict) and "state" in item:
                item[field] = item["state"]
    assert call.is_shown_by(shown if name == "gitlab" else {"statuses": shown}) == is_shown
    assert not call.is_shown_by({} if name == "gitlab" else [])


def test_a_mail_drop_takes_no_statuses() -> None:
    assert receivers.load("directory").call("", "", Status("a/b", "1" * 40, None, "c", "d", "")) is None


# Names of repositories


@pytest.mark.parametrize(
    "urls",
    [
        ["https://github.com/Org/hello.git", "git@github.com:org/hello.git", "ssh://git@github.com:22/org/hello", "git://github.com/org/hello/"],
        ["http://localhost:3000/a/b.git", "git@localhost:a/b.git"],
        ["/srv/git/hello.git", "file:///srv/git/hello.git"],
        ["https://user:password@h/a/b", "https://h/a/b"],
    ],
    ids=str,
)  # fmt: skip
def test_urls_of_one_repository_have_one_address(urls: list[str]) -> None:
    [address] = {repositories.address(url) for url in urls}
    assert repositories.name(address) == address
    assert all(repositories.address(url) and not repositories.problem(url) for url in urls)


@pytest.mark.parametrize(
    "text", ["", "org", "org/hello", "a b", "https://", "https://host/", "x" * 400, "https://h/\n", "C:\\x"]
)
def test_what_is_no_url_has_no_address(text: str) -> None:
    assert repositories.address(text) == ""


@pytest.mark.parametrize("text", ["org", "", "../x", "a/..", "a//b", "a/b c", "x/" + "y" * 400, "a/b\n"])
def test_what_names_no_repository_is_a_problem(text: str) -> None:
    assert repositories.problem(text)


def test_a_full_name_and_a_url_are_never_the_same() -> None:
    assert repositories.name("github.com/hello") != repositories.name("https://github.com/hello")
    assert repositories.name("Org/Hello") == repositories.name("org/hello")
