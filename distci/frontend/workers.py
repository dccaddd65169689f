"""Workers: who is live, what they hold, and who shall take nothing more."""

from __future__ import annotations

from collections.abc import Sequence

from distci.access import Action
from distci.errors import NoSuchWorker
from distci.frontend.endpoint import CURSOR, Answer, Call, Endpoint, Returns, limit
from distci.frontend.paging import page


def list_workers(call: Call) -> Answer:
    after = call.query["cursor"] or ""
    found = (worker for worker in call.system.status.workers() if worker.name > after)
    return page(call, found, lambda worker: worker.name)


def get_worker(call: Call) -> Answer:
    name = call.path["worker"]
    for worker in call.system.status.workers():
        if worker.name == name:
            return Answer(worker)
    raise NoSuchWorker(f"no live worker {name!r}; `distci worker list` shows all there are")


def drain_worker(call: Call) -> Answer:
    call.system.tickets.drain(call.path["worker"])
    return Answer({"name": call.path["worker"], "is_draining": True})


ENDPOINTS: Sequence[Endpoint] = (
    Endpoint(
        "GET",
        "/workers",
        "list_workers",
        "List the live workers by name",
        list_workers,
        Action.READ,
        {200: Returns("A page of workers.", "worker-page", headers=("ETag", "Link"))},
        (limit(100), CURSOR),
    ),
    Endpoint(
        "GET",
        "/workers/{worker}",
        "get_worker",
        "Read a live worker",
        get_worker,
        Action.READ,
        {200: Returns("The worker, and what it holds.", "worker", headers=("ETag",))},
    ),
    Endpoint(
        "POST",
        "/workers/{worker}/drain",
        "drain_worker",
        "Let a worker finish what it holds and take nothing more",
        drain_worker,
        Action.ADMIN,
        {200: Returns("It has been told.", "worker-drained")},
    ),
)
