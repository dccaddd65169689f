"""The map of the store: every name finds its own key, and comes back from it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distci.errors import Invalid
from distci.model import BuildId
from distci.store import keys

BUILD = BuildId("team/hello", 12)
TOKEN = "team:hello:12:test.1"

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
HOSTILE_NAMES = [
    "/",
    ".",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "a//b",
    "a b",
    "a\0b",
    "a\nb",
    "%2F",
    "naïve/日本",
    "~",
]


def test_the_keys_of_a_build_are_where_the_map_says() -> None:
    assert [
        keys.build_plan(BUILD),
        keys.pin(BUILD, "commit"),
        keys.attempt_outcome(BUILD, "test[3.11,arch=amd64]", "t.1"),
        keys.log_chunk(BUILD, "test", "t.1", 65536),
        keys.artifact(BUILD, "test", "t.1", "dist/hello world.whl"),
        keys.workspace(BUILD, "test", "t.1"),
        keys.upload_note(BUILD, "dist/hello"),
        keys.upload(BUILD, "dist/hello", "ab" * 32),
    ] == [
        "builds/team:hello/000000012/plan.json",
        "builds/team:hello/000000012/pins/commit",
        "builds/team:hello/000000012/tasks/test[3.11,arch=amd64]/t.1/outcome.json",
        "builds/team:hello/000000012/tasks/test/t.1/log/0000000000065536",
        "builds/team:hello/000000012/tasks/test/t.1/artifacts/dist%2Fhello%20world.whl",
        "builds/team:hello/000000012/tasks/test/t.1/workspace.json",
        "builds/team:hello/000000012/upload-notes/dist%2Fhello",
        f"builds/team:hello/000000012/uploads/dist%2Fhello/{'ab' * 32}",
    ]


@pytest.mark.parametrize("name", ["a", "dist/hello", "a b", "..", "%2F"])
def test_the_note_of_an_upload_is_found_and_copied_before_its_bytes(name: str) -> None:
    note, key = keys.upload_note(BUILD, name), keys.upload(BUILD, name, "ab" * 32)
    assert keys.note_of_upload(key) == note < key


def test_a_pack_is_spread_by_the_first_digits_of_its_digest() -> None:
    digest = "ab" + "0" * 62
    assert keys.pack(digest) == f"packs/ab/{digest}"


@pytest.mark.parametrize("digest", ["", "ab", "AB" + "0" * 62, "../" + "0" * 61, "0" * 63 + "\n"])
def test_what_is_no_digest_names_no_pack(digest: str) -> None:
    with pytest.raises(Invalid):
        keys.pack(digest)


@pytest.mark.parametrize("job", ["hello", "team/hello", "a/b/c/d", "00000001", "team/000000001/tasks"])
def test_names_come_back_from_their_keys(job: str) -> None:
    build = BuildId(job, 7)
    assert keys.job_of_marker(keys.job_marker(job)) == job
    assert keys.version_of(keys.job_version(job, 3)) == 3
    assert keys.downstream_of(keys.downstream("team/lib", job)) == job
    assert keys.build_of(keys.build_record(build)) == build
    assert keys.build_of(keys.log_chunk(build, "log", TOKEN, 5)) == build
    assert keys.offset_of_chunk(keys.log_chunk(build, "log", TOKEN, 5)) == 5


@pytest.mark.parametrize(
    ("decode", "key"),
    [
        (keys.job_of_marker, "jobs/"),
        (keys.job_of_marker, "jobs/a/b"),
        (keys.job_of_marker, "jobs/a:b:c:d:e"),
        (keys.job_of_marker, "jobs/a b"),
        (keys.job_of_marker, "builds/a"),
        (keys.version_of, "job-versions/a/1"),
        (keys.version_of, "job-versions/a/00000000x"),
        (keys.downstream_of, "downstream/a"),
        (keys.build_of, "builds/a/000000001"),
        (keys.build_of, "builds/a/000000001/"),
        (keys.offset_of_chunk, keys.build_plan(BUILD)),
        (keys.offset_of_chunk, keys.log(BUILD, "test", TOKEN) + "12"),
    ],
)
def test_a_key_of_another_form_is_refused_by_name(decode: Callable[[str], object], key: str) -> None:
    with pytest.raises(Invalid, match="key '"):
        decode(key)


def test_no_prefix_covers_the_keys_of_another_job() -> None:
    jobs = ["team", "team/a", "team/ab", "team/a/b", "team/a/000000001", "team/a-b", "team-a", "team.a"]
    for one, other in combinations(jobs, 2):
        for prefix_of in (keys.builds, keys.job_versions, keys.downstreams):
            assert not prefix_of(one).startswith(prefix_of(other))
            assert not prefix_of(other).startswith(prefix_of(one))


def test_no_prefix_covers_the_keys_of_another_build_task_or_attempt() -> None:
    prefixes = [
        keys.build(BuildId("a", 1)),
        keys.build(BuildId("a", 11)),
        keys.task(BuildId("a", 2), "test"),
        keys.task(BuildId("a", 2), "test/x"),
        keys.task(BuildId("a", 2), "test[1]"),
        keys.attempt(BuildId("a", 3), "test", "t.1"),
        keys.attempt(BuildId("a", 3), "test", "t.11"),
    ]
    for one, other in combinations(prefixes, 2):
        assert not one.startswith(other)
        assert not other.startswith(one)


def test_keys_sort_as_their_numbers_do() -> None:
    numbers = [0, 1, 9, 10, 99, 100, 65536, 999_999_999]
    for less, more in pairwise(numbers):
        assert keys.build_plan(BuildId("a", less)) < keys.build_plan(BuildId("a", more))
        assert keys.job_version("a", less) < keys.job_version("a", more)
        assert keys.log_chunk(BUILD, "t", "t.1", less) < keys.log_chunk(BUILD, "t", "t.1", more)


def test_past_a_build_is_after_all_of_it_and_before_the_next() -> None:
    past = keys.past_build(BUILD)
    assert keys.log_chunk(BUILD, "~~~", "~", 10**16 - 1) < past
    assert keys.build_plan(BUILD) < past < keys.build(BuildId(BUILD.job, BUILD.number + 1))


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_stay_within_their_own_segment(name: str) -> None:
    prefix = keys.attempt(BUILD, "test", TOKEN) + "artifacts/"
    key = keys.artifact(BUILD, "test", TOKEN, name)
    assert keys.check_key(key).startswith(prefix)
    assert "/" not in key.removeprefix(prefix)


@given(one=NAMES, other=NAMES)
def test_different_names_have_different_keys(one: str, other: str) -> None:
    keys_of_both = {keys.pin(BUILD, one), keys.pin(BUILD, other)}
    assert len(keys_of_both) == len({one, other})


@pytest.mark.parametrize("name", ["", "\udcff", "x" * 900, "日" * 100])
def test_names_that_fit_into_no_key_are_refused(name: str) -> None:
    with pytest.raises(Invalid):
        keys.artifact(BUILD, "test", TOKEN, name)


@pytest.mark.parametrize("job", ["", "a:b", "../a", "a/", "a b", "a/b/c/d/e"])
def test_what_is_no_job_id_makes_no_key(job: str) -> None:
    with pytest.raises(Invalid):
        keys.job_marker(job)


@pytest.mark.parametrize("number", [-1, 10**16])
def test_numbers_that_would_break_the_order_are_refused(number: int) -> None:
    with pytest.raises(Invalid):
        keys.log_chunk(BUILD, "test", TOKEN, number)


def test_the_keys_of_what_forges_tell_and_are_told_are_where_the_map_says() -> None:
    commit = "1" * 40
    assert keys.hook("github", "org/hello", "team/a") == "hooks/github/org%2Fhello/team:a"
    assert keys.job_of_hook(keys.hook("acme.mail", "//forge/org/hello", "team/a")) == "team/a"
    assert keys.held_of(keys.held("4f2a9c1e5b7d0836")) == "4f2a9c1e5b7d0836"
    assert (
        keys.status("github", "org/hello", commit, BUILD, False)
        == f"statuses/github/org%2Fhello/{commit}/team:hello/000000012-0"
    )


def test_what_a_forge_was_told_sorts_by_build_and_then_begun_before_over() -> None:
    told = [
        keys.status("github", "a/b", "1" * 40, BuildId("j", number), is_over)
        for number in (9, 10)
        for is_over in (False, True)
    ]
    assert told == sorted(told)
    assert all(key.startswith(keys.statuses("github", "a/b", "1" * 40, "j")) for key in told)


def test_marks_of_one_repository_are_no_others() -> None:
    prefixes = [keys.hooks("github", name) for name in ("a/b", "a/b/c", "a", "//a/b")]
    assert not any(one != other and one.startswith(other) for one in prefixes for other in prefixes)


def test_the_longest_repository_has_a_key() -> None:
    keys.hook("x" * 64, "/" * 200, "j" * 128)
