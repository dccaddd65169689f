"""Who may do what: the whole table, and what holds for all of it."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distci.access import (
    NOBODY,
    Action,
    Allowed,
    Decision,
    Denied,
    Grant,
    Grants,
    Hidden,
    Nobody,
    Person,
    Principal,
    Role,
    Token,
    Visibility,
    Worker,
    decide,
    disguised,
    may_give,
)
from distci.access.rights import check_name, check_subject
from distci.errors import Invalid
from distci.projects import is_within, lineage

PROJECT = "team/web"
ADA = "ada@example.org"

TABLE = """
                 private                              internal                             public
                 read trig repo quar shel writ admi work   read trig repo quar shel writ admi work   read trig repo quar shel writ admi work
nobody           -    -    -    -    -    -    -    -      -    -    -    -    -    -    -    -      yes  no   no   no   no   no   no   no
person           -    -    -    -    -    -    -    -      yes  no   no   no   no   no   no   no     yes  no   no   no   no   no   no   no
viewer           yes  no   no   no   no   no   no   no     yes  no   no   no   no   no   no   no     yes  no   no   no   no   no   no   no
runner           yes  yes  no   no   no   no   no   no     yes  yes  no   no   no   no   no   no     yes  yes  no   no   no   no   no   no
editor           yes  yes  yes  yes  yes  yes  no   no     yes  yes  yes  yes  yes  yes  no   no     yes  yes  yes  yes  yes  yes  no   no
owner            yes  yes  yes  yes  yes  yes  yes  no     yes  yes  yes  yes  yes  yes  yes  no     yes  yes  yes  yes  yes  yes  yes  no
worker           no   no   no   no   no   no   no   yes    no   no   no   no   no   no   no   yes    yes  no   no   no   no   no   no   yes
worker-other     -    -    -    -    -    -    -    -      -    -    -    -    -    -    -    -      yes  no   no   no   no   no   no   no
token-read       yes  no   no   no   no   no   no   no     yes  no   no   no   no   no   no   no     yes  no   no   no   no   no   no   no
token-trigger    no   yes  no   no   no   no   no   no     no   yes  no   no   no   no   no   no     yes  yes  no   no   no   no   no   no
token-report     no   no   yes  no   no   no   no   no     no   no   yes  no   no   no   no   no     yes  no   yes  no   no   no   no   no
token-quarantine no   no   no   yes  no   no   no   no     no   no   no   yes  no   no   no   no     yes  no   no   yes  no   no   no   no
token-shell      no   no   no   no   yes  no   no   no     no   no   no   no   yes  no   no   no     yes  no   no   no   yes  no   no   no
token-write      no   no   no   no   no   yes  no   no     no   no   no   no   no   yes  no   no     yes  no   no   no   no   yes  no   no
token-admin      no   no   no   no   no   no   yes  no     no   no   no   no   no   no   yes  no     yes  no   no   no   no   no   yes  no
token-all        yes  yes  yes  yes  yes  yes  yes  no     yes  yes  yes  yes  yes  yes  yes  no     yes  yes  yes  yes  yes  yes  yes  no
token-other      -    -    -    -    -    -    -    -      -    -    -    -    -    -    -    -      yes  no   no   no   no   no   no   no
token-stranger   -    -    -    -    -    -    -    -      yes  no   no   no   no   no   no   no     yes  no   no   no   no   no   no   no
token-viewer     yes  no   no   no   no   no   no   no     yes  no   no   no   no   no   no   no     yes  no   no   no   no   no   no   no
token-runner     yes  yes  no   no   no   no   no   no     yes  yes  no   no   no   no   no   no     yes  yes  no   no   no   no   no   no
token-editor     yes  yes  yes  yes  yes  yes  no   no     yes  yes  yes  yes  yes  yes  no   no     yes  yes  yes  yes  yes  yes  no   no
token-owner      yes  yes  yes  yes  yes  yes  yes  no     yes  yes  yes  yes  yes  yes  yes  no     yes  yes  yes  yes  yes  yes  yes  no
"""
"""``-``: to them it is not there. A token that acts for somebody has all scopes here."""

WORDS = {"yes": Allowed, "no": Denied, "-": Hidden}
SCOPES = frozenset(Action) - {Action.WORK}
ROWS = {line.split()[0]: line.split()[1:] for line in TABLE.strip().splitlines()[2:]}
CELLS = [*product(Visibility, Action)]


def principal(row: str) -> Principal:
    sort, _, what = row.partition("-")
    if sort == "worker":
        return Worker("w1", "lab", frozenset({"shell"}), project="other" if what else "team")
    if sort == "token":
        if what in ("stranger", *Role):
            return Token("t1", "laptop", SCOPES, person=Person(ADA))
        scopes = SCOPES if what in ("all", "other") else frozenset({Action(what)})
        return Token("t1", "program", scopes, project="other" if what == "other" else "team")
    return NOBODY if row == "nobody" else Person(ADA)


def grants(row: str, visibility: Visibility) -> Grants:
    told = Grants().with_visibility(PROJECT, visibility)
    role = row.removeprefix("token-")
    return told.with_role(Grant(ADA, Role(role), PROJECT)) if role in [*Role] else told


@pytest.mark.parametrize(
    ("row", "visibility", "action", "wanted"),
    [
        (row, visibility, action, word)
        for row, words in ROWS.items()
        for (visibility, action), word in zip(CELLS, words, strict=True)
    ],
)
def test_a1_who_may_do_what_is_as_the_table_says(row: str, visibility: Visibility, action: Action, wanted: str) -> None:
    assert isinstance(decide(principal(row), grants(row, visibility), action, PROJECT), WORDS[wanted])


def test_the_table_has_every_role_and_every_sort_of_principal() -> None:
    assert {*Role} <= {*ROWS}
    assert {type(principal(row)) for row in ROWS} == {Nobody, Person, Token, Worker}


def test_nothing_is_allowed_of_which_nothing_is_said() -> None:
    for row in ("nobody", "person", "token-owner", "token-other", "worker-other"):
        for action in Action:
            assert isinstance(decide(principal(row), Grants(), action, PROJECT), Hidden)


def test_a_role_holds_for_all_within_its_project_and_for_nothing_beside_it() -> None:
    told = Grants().with_role(Grant(ADA, Role.EDITOR, "team"))
    for project, wanted in (
        ("team", Allowed),
        ("team/web/x", Allowed),
        ("teams", Hidden),
        ("", Hidden),
        ("x/team", Hidden),
    ):
        assert isinstance(decide(Person(ADA), told, Action.WRITE, project), wanted), project


def test_a_smaller_role_further_down_takes_nothing_away() -> None:
    told = Grants().with_role(Grant(ADA, Role.OWNER, "team")).with_role(Grant(ADA, Role.VIEWER, "team/web"))
    assert isinstance(decide(Person(ADA), told, Action.ADMIN, "team/web"), Allowed)


def test_the_nearest_visibility_counts() -> None:
    told = Grants().with_visibility("", Visibility.PUBLIC).with_visibility("team", Visibility.PRIVATE)
    told = told.with_visibility("team/web", Visibility.INTERNAL)
    seen = {project: told.visibility(project).value for project in ("", "x", "team", "team/a", "team/web/b")}
    assert seen == {"": "public", "x": "public", "team": "private", "team/a": "private", "team/web/b": "internal"}


@pytest.mark.parametrize(
    ("subject", "is_meant"),
    [
        (ADA, True),
        ("*@example.org", True),
        ("*@ample.org", False),
        ("*@ada@example.org", False),
        ("group:web", True),
        ("group:we", False),
        ("everybody", True),
        ("bob@example.org", False),
        ("ADA@example.org", False),
        ("", False),
    ],
)
def test_whom_a_grant_means(subject: str, is_meant: bool) -> None:
    assert Person(ADA, frozenset({"web"})).is_meant(subject) == is_meant


@pytest.mark.parametrize("name", ["", "everybody", "group:admins", "*@example.org", "a b", "a\n", "-a"])
def test_nobody_can_be_named_like_what_means_many(name: str) -> None:
    with pytest.raises(Invalid):
        check_name(name)
    with pytest.raises(Invalid):
        Person(name)


@pytest.mark.parametrize("subject", ["", "group:", "*", "*@", "a*@example.org", "group:a\nb", "a b", "Ada@example.org"])
def test_a_subject_that_means_nobody_is_refused(subject: str) -> None:
    with pytest.raises(Invalid):
        check_subject(subject)


def test_a_worker_is_held_to_its_kinds_labels_and_project() -> None:
    worker = Worker("w1", "lab", frozenset({"shell", "git-checkout"}), ("os=linux", "gpu=*"), "team")
    assert worker.may_offer(["shell"], ["os=linux", "gpu=a100", "isolation=sandbox"])
    assert not worker.may_offer(["shell", "control"], [])
    assert not worker.may_offer(["shell"], ["os=windows"])
    assert worker.may_claim("shell", "team/web/job")
    assert not worker.may_claim("shell", "teams/job")
    assert not worker.may_claim("control", "team/web/job")


PROJECTS = st.sampled_from(["", "a", "b", "a/a", "a/b", "a/a/a"])
NAMES = st.sampled_from(["ada@x.org", "bob@x.org", "eve@y.org"])
PERSONS = st.builds(Person, NAMES, st.frozensets(st.sampled_from(["g", "h"])))
GRANTS = st.builds(
    Grant,
    st.one_of(NAMES, st.sampled_from(["*@x.org", "group:g", "group:h", "everybody"])),
    st.sampled_from(Role),
    PROJECTS,
)
TOKENS = st.builds(
    Token,
    st.just("t"),
    st.just("l"),
    st.frozensets(st.sampled_from(Action)),
    PROJECTS,
    st.one_of(st.none(), PERSONS),
)
WORKERS = st.builds(Worker, st.just("w"), st.just("l"), st.just(frozenset({"shell"})), st.just(()), PROJECTS)
PRINCIPALS = st.one_of(st.just(NOBODY), PERSONS, TOKENS, WORKERS)


@st.composite
def told(draw: st.DrawFn) -> Grants:
    found = Grants(visibilities=draw(st.dictionaries(PROJECTS, st.sampled_from(Visibility))))
    for grant in draw(st.lists(GRANTS, max_size=6)):
        found = found.with_role(grant)
    return found


def _is_allowed(decision: Decision) -> bool:
    return isinstance(decision, Allowed)


@given(PRINCIPALS, told(), st.sampled_from(Action), PROJECTS)
def test_whoever_is_told_of_a_project_sees_it_or_has_something_to_do_there(
    who: Principal, grants: Grants, action: Action, project: str
) -> None:
    others = [decide(who, grants, other, project) for other in Action]
    if isinstance(decide(who, grants, action, project), Hidden):
        assert all(isinstance(other, Hidden) for other in others)
    elif not isinstance(who, Token):
        assert any(map(_is_allowed, others))


@given(PRINCIPALS, told(), st.sampled_from(Action), PROJECTS)
def test_whoever_says_who_they_are_may_do_no_less_than_nobody(
    who: Principal, grants: Grants, action: Action, project: str
) -> None:
    if _is_allowed(decide(NOBODY, grants, action, project)):
        assert _is_allowed(decide(who, grants, action, project))


@given(TOKENS, told(), st.sampled_from(Action), PROJECTS)
def test_a_token_may_do_no_more_than_whom_it_acts_for_and_never_leaves_its_project(
    token: Token, grants: Grants, action: Action, project: str
) -> None:
    if _is_allowed(decide(token, grants, action, project)) and not _is_allowed(decide(NOBODY, grants, action, project)):
        assert action in token.scopes
        assert is_within(project, token.project)
        assert token.person is None or _is_allowed(decide(token.person, grants, action, project))


@given(PRINCIPALS, told(), GRANTS, st.sampled_from(Action), PROJECTS)
def test_one_more_role_takes_nothing_away_and_none_less_gives_anything(
    who: Principal, grants: Grants, grant: Grant, action: Action, project: str
) -> None:
    less = grants.without_role(grant.subject, grant.project)
    more = less.with_role(grant)
    if _is_allowed(decide(who, less, action, project)):
        assert _is_allowed(decide(who, more, action, project))
    if not is_within(project, grant.project):
        assert decide(who, less, action, project) == decide(who, more, action, project)


@given(PERSONS, told(), st.sampled_from(Action), PROJECTS)
def test_work_is_for_workers(who: Person, grants: Grants, action: Action, project: str) -> None:
    assert not _is_allowed(decide(who, grants, Action.WORK, project))


@given(PROJECTS, PROJECTS)
def test_a_project_is_within_what_its_lineage_names(project: str, outer: str) -> None:
    assert is_within(project, outer) == (outer in lineage(project))


@given(PRINCIPALS, told(), st.frozensets(st.sampled_from([*Action]), min_size=1), PROJECTS, st.sampled_from(Action))
def test_nobody_gives_with_a_token_what_they_do_not_have(
    who: Principal, grants: Grants, scopes: frozenset[Action], project: str, action: Action
) -> None:
    if _is_allowed(may_give(who, grants, scopes, project)):
        assert _is_allowed(decide(who, grants, Action.ADMIN, project))
        given = Token("t", "l", scopes - {Action.WORK}, project)
        for place in ("", "a", "a/a", "b"):
            if _is_allowed(decide(given, grants, action, place)):
                assert _is_allowed(decide(who, grants, action, place))


def test_an_owner_gives_tokens_of_their_project_alone() -> None:
    told = Grants().with_role(Grant(ADA, Role.OWNER, "team")).with_visibility("", Visibility.INTERNAL)
    for project, wanted in (("team", Allowed), ("team/web", Allowed), ("other", Denied), ("", Denied)):
        assert isinstance(may_give(Person(ADA), told, SCOPES, project), wanted), project
    programs = Token("t", "l", frozenset({Action.ADMIN, Action.READ}), "team")
    assert isinstance(may_give(programs, told, {Action.READ}, "team"), Allowed)
    assert isinstance(may_give(programs, told, {Action.WRITE}, "team"), Denied)
    public = told.with_visibility("", Visibility.PUBLIC).with_visibility("team/secret", Visibility.PRIVATE)
    assert may_give(Token("t", "l", frozenset({Action.ADMIN}), ""), public, {Action.READ}, "") == Denied(
        "token t has no scope read"
    )


WITHIN = Grants(
    roles={"team/secret": {ADA: Role.VIEWER}},
    visibilities={"team": Visibility.PUBLIC, "team/secret": Visibility.PRIVATE, "team/inner": Visibility.INTERNAL},
)


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("project", ["team/secret", "team/secret/deep/job", "team/inner/job", "other/job"])
@pytest.mark.parametrize(
    "principal", [NOBODY, Person("eve@example.org"), Worker("w", "w", frozenset({"shell"}), (), "lab")]
)
def test_what_is_hidden_is_told_as_what_is_not_there(principal: Principal, project: str, action: Action) -> None:
    if not isinstance(decide(principal, WITHIN, action, project), Hidden):
        assert disguised(principal, WITHIN, action, project) == decide(principal, WITHIN, action, project)
        return
    beside = "other/none" if project.startswith("other") else "team/none"
    wanted, told = (disguised(principal, WITHIN, action, name) for name in (beside, project))
    assert str(told).replace(project, beside) == str(wanted)
