"""Sessions and login links on every tree, with several front ends, lost answers, and trees that are away or lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Protocol

import pytest
from waiting import wait_until
from wiping import wipe

from distci.access import LoginLinks, Person, Role, Sessions, Signing, signing
from distci.access.kept import GRACE_S
from distci.access.texts import Sort, new_text
from distci.coordination.port import Coordination, Create, Delete, Operation
from distci.errors import CoordinationUnavailable, NotAuthenticated
from distci.protocol import paths
from distci.protocol.tree import Tree
from distci.testing import CutCoordination

ADA = Person("ada@example.org", frozenset({"web"}), {"team": Role.EDITOR})
DAY_MS = 24 * 3600 * 1000


class Cluster(Protocol):
    def connect(self) -> Coordination: ...


class Ahead:
    """A clock that a test can put forward."""

    def __init__(self) -> None:
        self.by_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.by_s


class LateTree(Tree):
    """A tree whose clock is ahead by as much as ours."""

    ahead = Ahead()

    def now_ms(self) -> int:
        return super().now_ms() + int(self.ahead.by_s * 1000)


class FrontEnd:
    """A process that logs people in, with a line of its own to the tree."""

    def __init__(self, coordination: Coordination, new_epoch: Callable[[], int]) -> None:
        self.line = CutCoordination(coordination)
        self.monotonic = Ahead()
        self.tree = LateTree(self.line, new_epoch)
        self.tree.ahead = self.monotonic
        self.signing = Signing(self.tree, self.monotonic)
        self.sessions = Sessions(self.tree, self.signing, self.monotonic)
        self.links = LoginLinks(self.tree)

    def knows(self, cookie: str) -> bool:
        try:
            self.sessions.read(cookie)
        except NotAuthenticated:
            return False
        return True


class Site:
    def __init__(self, cluster: Cluster, stack: ExitStack) -> None:
        self._cluster = cluster
        self._stack = stack
        self._epoch = 0

    def front_end(self) -> FrontEnd:
        coordination = self._cluster.connect()
        self._stack.callback(coordination.close)
        return FrontEnd(coordination, self._new_epoch)

    def _new_epoch(self) -> int:
        self._epoch += 1
        return self._epoch


@pytest.fixture
def site(cluster: Cluster) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(cluster, stack)


def ends(operations: Sequence[Operation]) -> bool:
    return any(isinstance(step, Create) and step.path.startswith(paths.ENDED_SESSIONS + "/") for step in operations)


def uses(operations: Sequence[Operation]) -> bool:
    return any(isinstance(step, Delete) and step.path.startswith(paths.LOGIN_LINKS + "/") for step in operations)


# Sessions


def test_a_session_of_one_front_end_is_known_to_the_others(site: Site) -> None:
    one, other = site.front_end(), site.front_end()
    assert not other.knows("")
    cookie = one.sessions.begin(ADA)
    assert other.sessions.read(cookie).person == ADA


def test_a_session_ends_when_it_is_over(site: Site) -> None:
    front_end = site.front_end()
    cookie = front_end.sessions.begin(ADA, lifetime_s=60)
    assert front_end.knows(cookie)
    front_end.monotonic.by_s = 59
    assert front_end.knows(cookie)
    front_end.monotonic.by_s = 61
    assert not front_end.knows(cookie)


def test_who_logs_out_is_out_everywhere_with_every_copy_of_the_cookie(site: Site) -> None:
    one, other = site.front_end(), site.front_end()
    cookie, kept = one.sessions.begin(ADA), one.sessions.begin(ADA)
    assert other.knows(cookie)
    one.sessions.end(cookie)
    assert not one.knows(cookie)
    wait_until(lambda: not other.knows(cookie))
    assert other.knows(kept)
    other.sessions.end(cookie)


@pytest.mark.parametrize("committed", [True, False])
def test_a_logout_whose_answer_is_lost_is_one(site: Site, committed: bool) -> None:
    front_end = site.front_end()
    cookie = front_end.sessions.begin(ADA)
    front_end.line.lose_answer(committed=committed, when=ends)
    front_end.sessions.end(cookie)
    assert front_end.line.lost == 1
    assert not front_end.knows(cookie)


def test_ends_of_sessions_are_forgotten_when_these_would_be_over(site: Site) -> None:
    front_end = site.front_end()
    front_end.sessions.end(front_end.sessions.begin(ADA, lifetime_s=60))
    front_end.monotonic.by_s = 100
    front_end.sessions.end(front_end.sessions.begin(ADA))
    assert len(front_end.line.children(paths.ENDED_SESSIONS)) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1],
        lambda text: text + "x",
        lambda text: "0" * 8 + text[8:],
        lambda text: text.split(".")[0],
        lambda text: text.upper(),
    ],
)
def test_a_cookie_that_was_changed_is_none(site: Site, change: Callable[[str], str]) -> None:
    front_end = site.front_end()
    cookie = front_end.sessions.begin(ADA)
    assert not front_end.knows(change(cookie))


def test_what_was_signed_for_something_else_is_no_session(site: Site) -> None:
    front_end = site.front_end()
    text = front_end.signing.sign("login", {"id": "x", "name": ADA.name, "groups": [], "roles": {}}, 60)
    assert front_end.signing.read("login", text)["id"] == "x"
    assert not front_end.knows(text)


def test_keys_rotate_and_what_the_old_ones_signed_stays_good(site: Site) -> None:
    one, other = site.front_end(), site.front_end()
    old = one.sessions.begin(ADA, lifetime_s=24 * 3600)
    assert other.knows(old)
    ids = []
    for days in (0.6, 1.1, 1.7, 2.3):
        one.monotonic.by_s = days * DAY_MS / 1000
        new = one.sessions.begin(ADA)
        ids.append(new.partition(".")[0])
        assert other.knows(new), "a front end that does not know the key reads it"
        if days < 2:
            # For which it is the day before, still.
            assert other.knows(old)
    assert len({*ids}) == 3
    # A day after its successor came, the first key can have signed nothing that is still good.
    assert [key.id for key in signing._keys(one.line.read(paths.ACCESS_KEYS).data)] == [ids[1], ids[3]]  # type: ignore[union-attr]


def test_two_front_ends_that_make_the_first_key_at_once_agree(site: Site) -> None:
    front_ends = [site.front_end() for _ in range(4)]
    cookies: list[str] = []
    threads = [threading.Thread(target=lambda one=one: cookies.append(one.sessions.begin(ADA))) for one in front_ends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({cookie.partition(".")[0] for cookie in cookies}) == 1
    assert all(one.knows(cookie) for one in front_ends for cookie in cookies)


def test_no_key_is_in_a_cookie(site: Site) -> None:
    front_end = site.front_end()
    cookie = front_end.sessions.begin(ADA)
    node = front_end.line.read(paths.ACCESS_KEYS)
    assert node is not None
    assert all(key.secret not in cookie for key in signing._keys(node.data))


def test_a_cookie_fits_a_browser_however_many_groups_somebody_is_in(site: Site) -> None:
    front_end = site.front_end()
    crowd = Person("ada@example.org", frozenset(f"group number {number}" for number in range(5000)))
    cookie = front_end.sessions.begin(crowd)
    assert len(cookie) < 4000
    assert front_end.sessions.read(cookie).person.groups < crowd.groups


def test_sessions_outlast_a_short_outage_of_the_tree_and_then_nobody_knows(site: Site) -> None:
    front_end = site.front_end()
    cookie = front_end.sessions.begin(ADA)
    assert front_end.knows(cookie)
    front_end.line.is_cut = True
    front_end.monotonic.by_s = GRACE_S - 5
    assert front_end.knows(cookie)
    front_end.monotonic.by_s = GRACE_S + 5
    with pytest.raises(CoordinationUnavailable):
        front_end.sessions.read(cookie)
    with pytest.raises(CoordinationUnavailable):
        front_end.sessions.begin(ADA)
    front_end.line.is_cut = False
    assert front_end.knows(cookie)


def test_c17_with_a_lost_tree_all_sessions_end_and_none_that_was_ended_comes_back(site: Site) -> None:
    one, other = site.front_end(), site.front_end()
    ended, going = one.sessions.begin(ADA), one.sessions.begin(ADA)
    one.sessions.end(ended)
    wipe(one.line.real)
    for front_end in (one, other):
        wait_until(lambda front_end=front_end: not front_end.knows(going))  # type: ignore[misc]
        assert not front_end.knows(ended)

    def begins() -> bool:
        try:
            return other.knows(one.sessions.begin(ADA))
        except CoordinationUnavailable:
            return False

    wait_until(begins)
    assert not other.knows(ended)


# Login links


def test_a_link_lets_its_person_in_once(site: Site) -> None:
    one, other = site.front_end(), site.front_end()
    text = one.links.make("ada")
    assert other.links.use(text) == Person("ada", roles={"": Role.OWNER})
    for front_end in (one, other):
        with pytest.raises(NotAuthenticated):
            front_end.links.use(text)


def test_of_many_who_use_a_link_at_once_one_is_let_in(site: Site) -> None:
    front_ends = [site.front_end() for _ in range(4)]
    for _ in range(5):
        text = front_ends[0].links.make("ada")
        outcomes: Counter[str] = Counter()

        def use(front_end: FrontEnd, text: str = text, outcomes: Counter[str] = outcomes) -> None:
            try:
                front_end.links.use(text)
                outcomes["in"] += 1
            except NotAuthenticated:
                outcomes["out"] += 1

        threads = [threading.Thread(target=use, args=(front_end,)) for front_end in front_ends for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes == {"in": 1, "out": 7}


def test_a_link_expires(site: Site) -> None:
    front_end = site.front_end()
    late, soon = (front_end.links.make("ada", lifetime_s=60) for _ in range(2))
    front_end.monotonic.by_s = 50
    assert front_end.links.use(soon).name == "ada"
    front_end.monotonic.by_s = 61
    with pytest.raises(NotAuthenticated):
        front_end.links.use(late)


@pytest.mark.parametrize("committed", [True, False])
def test_who_does_not_hear_whether_it_was_them_finds_out(site: Site, committed: bool) -> None:
    one, other = site.front_end(), site.front_end()
    text = one.links.make("ada")
    one.line.lose_answer(committed=committed, when=uses)
    assert one.links.use(text).name == "ada"
    assert one.line.lost == 1
    with pytest.raises(NotAuthenticated):
        other.links.use(text)


def test_who_was_second_is_refused_also_when_the_answer_is_lost(site: Site) -> None:
    one, other = site.front_end(), site.front_end()
    text = one.links.make("ada")

    def other_is_first(operations: Sequence[Operation]) -> bool:
        if uses(operations):
            other.links.use(text)
            return True
        return False

    one.line.lose_answer(committed=False, when=other_is_first)
    with pytest.raises(NotAuthenticated):
        one.links.use(text)


def test_a_link_of_a_lost_tree_is_none(site: Site) -> None:
    front_end = site.front_end()
    text = front_end.links.make("ada")
    wipe(front_end.line.real)
    with pytest.raises(NotAuthenticated):
        front_end.links.use(text)


def test_what_is_no_link_lets_nobody_in(site: Site) -> None:
    front_end = site.front_end()
    for text in ("", "distcil_x", new_text(Sort.LOGIN), new_text(Sort.ACCESS)):
        with pytest.raises(NotAuthenticated):
            front_end.links.use(text)


def test_while_the_tree_is_away_nobody_is_told_that_a_link_is_bad(site: Site) -> None:
    front_end = site.front_end()
    text = front_end.links.make("ada")
    front_end.line.is_cut = True
    with pytest.raises(CoordinationUnavailable):
        front_end.links.use(text)
    front_end.line.is_cut = False
    assert front_end.links.use(text).name == "ada"


def test_used_links_are_forgotten_after_their_time(site: Site) -> None:
    front_end = site.front_end()
    front_end.links.use(front_end.links.make("ada", lifetime_s=60))
    front_end.links.make("unused", lifetime_s=60)
    front_end.monotonic.by_s = 70
    front_end.links.use(front_end.links.make("ada"))
    assert len(front_end.line.children(paths.USED_LINKS)) == 1
    assert len(front_end.line.children(paths.LOGIN_LINKS)) == 0
