"""Deliveries: what forges and other sources tell, each proved by its receiver's secret and by nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from distci.frontend.endpoint import Answer, Call, Endpoint, Returns
from distci.frontend.problems import BadRequest
from distci.hooks import InvalidDelivery
from distci.receivers.port import BODY_BYTES_MAX


def deliver(call: Call) -> Answer:
    try:
        answer = call.system.hooks.deliver(call.path["receiver"], call.request.headers, call.body)
    except InvalidDelivery as error:
        raise BadRequest(str(error), status=422) from error
    is_taken = answer.held or any(job.build for job in answer.jobs)
    return Answer(answer, 202 if is_taken else 200)


ENDPOINTS: Sequence[Endpoint] = (
    Endpoint(
        "POST",
        "/hooks/{receiver}",
        "deliver",
        "Tell of a change, as a forge does",
        deliver,
        None,
        {
            202: Returns(
                "It has started these builds, now or when it came before; or it waits for an approval.", "delivered"
            ),
            200: Returns("It starts nothing, for this reason.", "delivered"),
            401: Returns("The sender does not know a secret of the receiver, or none is set.", "problem"),
            503: Returns(
                "Tree or store is away: send it again. What it has started by then it does not start twice.", "problem"
            ),
        },
        body_bytes_max=BODY_BYTES_MAX,
        is_public=True,
        description="The body is the sender's, byte for byte, under the sender's own headers; the sender proves by them that it knows a secret of the receiver.",
    ),
)
