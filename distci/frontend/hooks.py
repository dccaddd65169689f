"""Deliveries: what forges and other sources tell, each proved by its receiver's secret and by nothing else; and what people decide of those
that are held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from distci.access import NOBODY, Action
from distci.errors import Forbidden, NoSuchReceiver, NotAuthenticated
from distci.frontend import bodies
from distci.frontend.endpoint import CURSOR, JSON, Answer, Call, Endpoint, Returns, limit
from distci.frontend.paging import page
from distci.frontend.problems import BadRequest
from distci.frontend.rates import DELIVERIES, FREE, UNPROVED, Rates
from distci.frontend.threads import Threads
from distci.hooks import Answer as Delivered
from distci.hooks import Held, InvalidDelivery, no_such_change
from distci.receivers.port import BODY_BYTES_MAX
from distci.views import to_json

SYSTEM = ""
"""What takes the place of a job where there is none: then it is a matter of the whole system."""


def list_receivers(call: Call) -> Answer:
    return Answer({"items": [*call.system.hooks.list()], "next": None})


class Intake:
    """Takes deliveries in, of which it is not known who sends them before they have been read whole."""

    def __init__(self, rates: Rates, threads: Threads) -> None:
        self._rates = rates
        self._threads = threads
        self._bodies = bodies.Intake()

    async def deliver(self, call: Call) -> Answer:
        async with self._bodies.read(call.request, self._rates.address(call.request), BODY_BYTES_MAX) as body:
            return await self._threads.run(self._deliver, call, body)

    def _deliver(self, call: Call, body: bytes) -> Answer:
        """The proved ones and the others are held to their rate apart: no stranger uses up that of a forge, be it by the same proxy.

        Of jobs that it does not start a sender hears as everybody does: they may be of any project.
        """

        def count(rate: str = DELIVERIES) -> None:
            self._rates.check(rate, NOBODY, call.request)

        try:
            told = call.system.hooks.deliver(
                call.path["receiver"], call.request.headers, body, count, is_told=call.may_read
            )
            return _became(told)
        except (NotAuthenticated, NoSuchReceiver):
            count(UNPROVED)
            raise
        except InvalidDelivery as error:
            raise BadRequest(str(error), status=422) from error


def list_held(call: Call) -> Answer:
    return page(call, _seen(call), lambda item: item[0].id, lambda item: {**to_json(item[0]), "may_decide": item[1]})


def approve_change(call: Call) -> Answer:
    answer = call.system.hooks.approve(call.path["change"], call.actor, _decider(call))
    # Jobs that it starts nothing of may be of any project.
    return _became(replace(answer, jobs=[job for job in answer.jobs if call.may(Action.READ, job.job)]))


def refuse_change(call: Call) -> Answer:
    change = call.path["change"]
    call.system.hooks.refuse(change, _decider(call))
    return Answer({"id": change, "is_refused": True})


def _became(answer: Delivered) -> Answer:
    is_taken = answer.held or any(job.build for job in answer.jobs)
    return Answer(answer, 202 if is_taken else 200)


def _seen(call: Call) -> Iterator[tuple[Held, bool]]:
    """The changes of which somebody may read a job, with just those jobs; and whether they may decide of it."""
    for held in call.system.hooks.held(call.query["cursor"] or ""):
        jobs = [job for job in held.jobs or [SYSTEM] if call.may(Action.READ, job)]
        if jobs:
            yield replace(held, jobs=[job for job in jobs if job]), _may_decide(call, held)


def _may_decide(call: Call, held: Held) -> bool:
    """Whether somebody may start a build of every job that a change would start one of."""
    return all(call.may(Action.TRIGGER, job) for job in held.jobs or [SYSTEM])


def _decider(call: Call) -> Callable[[Held], None]:
    """Lets those alone decide of a change who may."""

    def check(held: Held) -> None:
        if not any(call.may(Action.READ, job) for job in held.jobs or [SYSTEM]):
            raise no_such_change(held.id)
        if not _may_decide(call, held):
            raise Forbidden(
                f"{call.actor} may not start a build of every job that change {held.id} concerns; ask somebody who may"
            )

    return check


def endpoints(intake: Intake) -> Sequence[Endpoint]:
    """The endpoints for those who tell of changes, and for those who decide of them."""
    return (
        Endpoint(
            "GET",
            "/hooks",
            "list_receivers",
            "List the receivers that are installed",
            list_receivers,
            Action.READ,
            {200: Returns("All of them, by name.", "receiver-page", headers=("ETag",))},
        ),
        Endpoint(
            "POST",
            "/hooks/{receiver}",
            "deliver",
            "Tell of a change, as a forge does",
            intake.deliver,
            None,
            {
                202: Returns(
                    "It has started these builds, now or when it came before; or it waits for an approval.", "delivered"
                ),
                200: Returns("It starts nothing, for this reason.", "delivered"),
                401: Returns("The sender does not know a secret of the receiver, or none is set.", "problem"),
                429: Returns("There were too many; the header `Retry-After` says when to send it again.", "problem"),
                503: Returns(
                    "Tree or store is away, or too much is being read: send it again. What it has started by then it does not start twice.",
                    "problem",
                ),
            },
            takes=JSON,
            is_public=True,
            rate=FREE,
            description="The body is the sender's, byte for byte, under the sender's own headers; the sender proves by them that it knows a secret of the receiver.",
        ),
        Endpoint(
            "GET",
            "/held",
            "list_held",
            "List the changes by people without rights to their repository, which wait for an approval",
            list_held,
            None,
            {
                200: Returns(
                    "A page of changes, by id: those of which you may read a job.",
                    "held-page",
                    headers=("ETag", "Link"),
                )
            },
            (limit(100), CURSOR),
            is_filtered=True,
            tag="hooks",
        ),
        Endpoint(
            "POST",
            "/held/{change}/approve",
            "approve_change",
            "Build a change that was held",
            approve_change,
            None,
            {
                202: Returns("It has started these builds.", "delivered"),
                200: Returns("It starts nothing any more, for this reason.", "delivered"),
            },
            tag="hooks",
            description="For those who may start builds of every job that it concerns. Its builds get no secrets all the same.",
        ),
        Endpoint(
            "POST",
            "/held/{change}/refuse",
            "refuse_change",
            "Let a change that was held wait no longer",
            refuse_change,
            None,
            {200: Returns("It is forgotten.", "refused")},
            tag="hooks",
            description="For those who may start builds of every job that it concerns.",
        ),
    )
