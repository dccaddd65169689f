"""What DistCI promises about speed, measured on this machine; see ``tests/benchmarks/run --help``."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import re
import resource
import shutil
import statistics
import string
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event

import requests
from integration.git_remotes import SshServer, git_daemon
from services import engines, machines, s3
from services.ceph import Ceph, Gateway
from services.containers import Podman
from services.daemon import accepts, free_port
from services.machines import image_of
from services.nginx import Nginx
from services.zookeeper import ZooKeeperServers
from splitting import leaks, new_secrets
from streaming import PRINTING, Crowd
from waiting import wait_until

import distci
from distci import bench
from distci.access import Action
from distci.app import open_coordination, open_store
from distci.bench.measuring import sure
from distci.build_tickets import control_ticket
from distci.coordination.port import Check, Create, Write
from distci.isolation.cgroups import find_cgroups
from distci.isolation.container import ContainerIsolation
from distci.isolation.host import HostIsolation
from distci.isolation.lxc import LxcIsolation
from distci.isolation.port import Command, Confinement, Isolation, Limits, Mount
from distci.isolation.sandbox import SandboxIsolation
from distci.isolation.users import Subordinates
from distci.isolation.vm import VmIsolation
from distci.jobs import Jobs
from distci.live import LiveBuild
from distci.masking import Masker
from distci.model import BuildId, Result, Trigger
from distci.protocol import Tickets, paths, transactions
from distci.protocol.members import workers
from distci.protocol.tickets import DAY_S
from distci.settings import Settings
from distci.store import keys
from distci.store.directory import DirectoryStore
from distci.store.s3 import S3Store

PROGRAM = str(Path(sys.executable).with_name("distci"))
KINDS = ("control", "git-checkout", "shell", "publish-artifacts")
BUILDS = 11
STARTS = 15
JOBS = 100_000
JOBS_LISTED = 100
WRITERS = 16
LISTS = 11
IDLE_S = 45.0
CLIENTS = 16
TRIGGERS = 960
LARGE_GIB = 5
LARGE_TIME_MAX_S = 300
RAW_KEY = "benchmark/large"
MIB = 1024 * 1024
STREAMS = 2000
STREAMS_S = 60.0
FOLLOWERS = 500
FILES, COMMITS, CHANGED_FILES = 10_000, 5_000, 20
VERSIONS = 1 + COMMITS * CHANGED_FILES // FILES
CHECKOUTS = 5
LINES = 400
ISOLATED = 41
CONFINED = Confinement()
SECRETS = 50
MASKED_MB = 40
PIPE_BYTES = 65536
SPLITS = 1_000_000


def main(parts: Sequence[str]) -> int:
    known: dict[str, Callable[[Path], None]] = {
        "start": start,
        "builds": builds,
        "tickets": tickets,
        "scale": scale,
        "jobs": jobs,
        "idle": idle,
        "frontend": frontend,
        "download": download,
        "checkout": checkout,
        "streams": streams,
        "isolation": isolation,
        "masking": masking,
        "containers": containers,
    }
    if unknown := [part for part in parts if part not in known]:
        print(f"no part {unknown[0]!r}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    print(
        f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} processors, {distci.__version__}, Python {sys.version.split()[0]}"
    )
    # Engines of containers take root, and packages that not everybody wants to have.
    for part in parts or [part for part in known if part != "containers"]:
        with tempfile.TemporaryDirectory(prefix="distci-benchmark-") as folder:
            known[part](Path(folder))
    print(f"load {os.getloadavg()[0]:.2f}")
    return 0


def show(what: str, figure: str, limit: str) -> None:
    print(f"{what:56} {figure:>24}   ({limit})", flush=True)


# Builds


def builds(folder: Path) -> None:
    """A checkout of a small local repository, two shell tasks, a publish; from trigger to final state."""
    document = _trivial(folder)
    with ExitStack() as stack:
        embedded = folder / "embedded"
        ci = stack.enter_context(distci.connect(embedded))
        stack.enter_context(_process(["up", "--data", str(embedded)], folder))
        wait_until(ci.status.has_workers)
        seconds, transactions = _build_repeatedly(ci, document, None)
        show("trivial build, embedded, median of 10", f"{seconds:.2f} s", "at most 0.7 s")
    with ExitStack() as stack:
        servers = ZooKeeperServers(_made(folder / "servers"))
        stack.callback(servers.stop)
        back_ends = {"coordination": f"zookeeper://{servers.hosts}/bench", "store": f"file://{folder / 'store'}"}
        ci = stack.enter_context(distci.connect(coordination=back_ends["coordination"], store=back_ends["store"]))
        flags = [word for name, url in back_ends.items() for word in (f"--{name}", url)]
        for kind in KINDS:
            stack.enter_context(_process(["worker", "run", kind, *flags, "--data", str(folder / kind)], folder))
        wait_until(lambda: len(list(workers(ci.tickets))) == len(KINDS))
        seconds, transactions = _build_repeatedly(ci, document, servers)
        show("trivial build, ZooKeeper, a process a kind, median of 10", f"{seconds:.2f} s", "at most 1.5 s")
        show(
            "its coordination transactions, by the server's zxid", f"{transactions:.1f}", "at most 4 tasks * 2 + 5 = 13"
        )


def _build_repeatedly(
    ci: distci.DistCI, document: dict[str, object], servers: ZooKeeperServers | None
) -> tuple[float, float]:
    """Seconds and transactions of one build, when the workers have done one before."""
    ci.jobs.put(document)
    seconds, transactions = [], []
    for _ in range(BUILDS):
        before, started = _zxid(servers), time.perf_counter()
        build = ci.builds.trigger(str(document["job"]))
        view = ci.builds.wait(build, 60)
        seconds.append(time.perf_counter() - started)
        transactions.append(_zxid(servers) - before)
        if view.result is not Result.PASSED:
            raise SystemExit(f"{build} {view.state}: {[(task.name, task.state, task.reason) for task in view.tasks]}")
    return statistics.median(seconds[1:]), statistics.median(transactions[1:])


def _trivial(folder: Path) -> dict[str, object]:
    repository = _made(folder / "repository")
    (repository / "file").write_text("text\n")
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for command in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "--message", "A file"]):
        subprocess.run(["git", *command], cwd=repository, check=True)
    return {
        "job": "trivial",
        "tasks": [
            {"name": "source", "type": "git-checkout", "repository": f"file://{repository}"},
            {"name": "make", "type": "shell", "script": "cp file made"},
            {"name": "test", "type": "shell", "script": "cmp file made"},
            {"name": "publish", "type": "publish-artifacts", "paths": ["made"]},
        ],
    }


# Tickets


def tickets(folder: Path) -> None:
    """Tickets beside raw transactions on the same server, waking, and a crowd."""
    servers = ZooKeeperServers(_made(folder / "servers"))
    try:
        settings = Settings(coordination=f"zookeeper://{servers.hosts}/{uuid.uuid4().hex}")
        for concurrency in (1, 4):
            ratios = [
                bench.cycle(lambda: open_coordination(settings), 400 * concurrency, concurrency).ratio for _ in range(3)
            ]
            show(
                f"ticket cycle, {concurrency} at once, share of raw transactions",
                f"{statistics.median(ratios):.2f}",
                "at least 0.50",
            )
        wake = bench.wake(lambda: open_coordination(settings), 100)
        show("idle worker wakes, post to claim", f"p50 {wake.p50_ms:.1f} p99 {wake.p99_ms:.1f} ms", "within 50 ms")
        before = _zxid(servers)
        crowd = bench.crowd(lambda: open_coordination(settings), 50, 1000)
        written = _zxid(servers) - before
        show("50 workers, 1,000 tickets: claims tried a ticket", f"{crowd.claims_tried_per_ticket:.2f}", "at most 1.3")
        show(
            "... quorum writes a ticket, by the server's zxid",
            f"{written / 1000:.2f}",
            "at most 4.0, sessions included",
        )
        show("... tickets a second", f"{1000 / crowd.seconds:.0f}", "no limit")
    finally:
        servers.stop()


# Scale


def scale(folder: Path) -> None:
    """Long queues and very many idle workers, on one server and on an ensemble of three."""
    for count in (1, 3):
        servers = ZooKeeperServers(_made(folder / f"ensemble of {count}"), count)
        try:
            where = Settings(coordination=f"zookeeper://{servers.hosts}/bench", data=str(folder), session_timeout="30s")
            with bench.fenced(where) as own:
                connect = partial(open_coordination, own)
                ratio = statistics.median(bench.cycle(connect, 400).ratio for _ in range(3))
                show(f"{count} servers: ticket cycle, share of raw transactions", f"{ratio:.2f}", "at least 0.60")
                chained = [bench.cycle(connect, 2000, 10, chains=200) for _ in range(3)]
                ratio = statistics.median(each.ratio for each in chained)
                per_s = statistics.median(each.tickets_per_s for each in chained)
                show(
                    "... 200 chains of 10 tickets by 10 workers",
                    f"{ratio:.2f}",
                    f"at least 0.60; {per_s:.0f} tickets/s",
                )
                backlog = bench.backlog(connect)
                show("... throughput, 10,000 waiting against 100", f"{backlog.ratio:.2f}", "at least 0.90")
                show("... tickets a second, 100 waiting", f"{backlog.few_per_s:.0f}", f"raw {backlog.raw_per_s:.0f}")
                crowds = sorted((bench.idle_crowd(connect) for _ in range(3)), key=lambda crowd: crowd.p99_ms)
                crowd = crowds[1]
                rate = f"{crowd.per_s:.0f}"
                show(
                    f"... 1,000 idle workers, {rate} tickets/s: claims tried a ticket",
                    f"{crowd.claims_tried_per_ticket:.2f}",
                    "at most 1.3",
                )
                raw = f"raw p50 {crowd.raw_p50_ms:.1f} p99 {crowd.raw_p99_ms:.1f} ms"
                delays = f"p50 {crowd.p50_ms:.0f} p99 {crowd.p99_ms:.0f} ms"
                show("... post to claim, median of three runs", delays, f"p99 under 250 ms; {raw}")
            with bench.fenced(where) as own:
                many = bench.builds(own, 500)
                figure = f"{many.seconds:.0f} s, {many.tasks_per_s:.0f} tasks/s"
                show("... 500 builds of 4 tasks at once", figure, f"no limit; {many.ratio:.2f} of raw")
        finally:
            servers.stop()


# Jobs


def jobs(folder: Path) -> None:
    """The first page of a hundred thousand jobs, in a bucket of Ceph's gateway."""
    ceph = Ceph(_made(folder / "ceph"))
    with ExitStack() as stack:
        stack.callback(ceph.stop)
        gateway = Gateway(_made(folder / "gateway"), ceph.configuration)
        stack.callback(gateway.stop)
        bucket = s3.new_bucket(gateway.endpoint)
        store = S3Store(
            bucket, endpoint_url=gateway.endpoint, access_key="tests", secret_key="tests", region="us-east-1"
        )
        # Of a job, a list reads the marker alone.
        with ThreadPoolExecutor(WRITERS) as pool:
            ids = (f"team{number % 100:02}/job-{number:06}" for number in range(JOBS))
            for _ in pool.map(lambda job: store.put(keys.job_marker(job), b""), ids):
                pass
        listed, client = Jobs(store), s3.client(gateway.endpoint)
        raw, ours = [], []
        for _ in range(LISTS):
            started = time.perf_counter()
            raw_page = client.list_objects_v2(Bucket=bucket, Prefix=keys.JOBS, MaxKeys=JOBS_LISTED)["Contents"]
            raw.append(1000 * (time.perf_counter() - started))
            started = time.perf_counter()
            page = list(listed.list(limit=JOBS_LISTED))
            ours.append(1000 * (time.perf_counter() - started))
            if len(page) != len(raw_page):
                raise SystemExit(f"a page of {len(page)} jobs, not of {len(raw_page)}")
        show(
            f"first {len(page)} of {JOBS:,} jobs on Ceph's gateway, median",
            f"{statistics.median(ours):.0f} ms",
            f"under 200 ms; raw list {statistics.median(raw):.0f} ms",
        )


# Idle


def idle(folder: Path) -> None:
    """Writes and memory of processes that wait for work."""
    servers = ZooKeeperServers(_made(folder / "servers"))
    with ExitStack() as stack:
        stack.callback(servers.stop)
        back_ends = {"coordination": f"zookeeper://{servers.hosts}/bench", "store": f"file://{folder / 'store'}"}
        flags = [word for name, url in back_ends.items() for word in (f"--{name}", url)]
        ci = stack.enter_context(distci.connect(coordination=back_ends["coordination"], store=back_ends["store"]))
        worker = stack.enter_context(_process(["worker", "run", "shell", *flags, "--data", str(folder / "w")], folder))
        whole = stack.enter_context(_process(["up", "--data", str(folder / "up")], folder))
        wait_until(lambda: len(list(workers(ci.tickets))) == 1)
        with distci.connect(folder / "up") as other:
            wait_until(lambda: len(list(workers(other.tickets))) == 2)
        # Joining and its aftermath are over when nothing has been written for a while.
        _wait_until_quiet(servers)
        before = _zxid(servers)
        end = time.monotonic() + IDLE_S
        wait_until(lambda: time.monotonic() > end, IDLE_S + 10)
        show(f"coordination writes of an idle worker in {IDLE_S:g} s", f"{_zxid(servers) - before}", "at most 2")
        show("memory of an idle shell worker", f"{_resident_mib(worker):.0f} MiB", "at most 70 MB")
        show("memory of `distci up`, every kind, idle", f"{_resident_mib(whole):.0f} MiB", "at most 200 MB")


def _wait_until_quiet(servers: ZooKeeperServers) -> None:
    seen, since = _zxid(servers), time.monotonic()

    def is_quiet() -> bool:
        nonlocal seen, since
        now = _zxid(servers)
        if now != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > 5

    wait_until(is_quiet)


def _resident_mib(process: subprocess.Popen[bytes], which: str = "VmRSS") -> float:
    found = re.search(rf"{which}:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


# Front end


def frontend(folder: Path) -> None:
    """Triggers through one front end beside what each is made of at least, on the same server in the same store, in turns."""
    servers = ZooKeeperServers(_made(folder / "servers"))
    with ExitStack() as stack:
        stack.callback(servers.stop)
        settings = Settings(
            coordination=f"zookeeper://{servers.hosts}/bench", store=f"file://{folder / 'store'}", data=str(folder)
        )
        ci = stack.enter_context(distci.DistCI(settings))
        flags = ["--coordination", settings.coordination, "--store", settings.store, "--data", str(folder)]
        process, url = _front_end(stack, flags, folder)
        for number in range(CLIENTS):
            ci.jobs.put({"job": f"team/of-{number}", "tasks": [{"name": "t", "type": "shell", "script": "true"}]})
        token = ci.access.create_token("benchmark", [Action.TRIGGER]).text
        for what, job_of in (("a job each", lambda client: client), ("one job", lambda client: 0)):
            rounds = [_trigger_round(settings, process, url, token, job_of) for _ in range(3)]
            per_s, cpu_ms, raw_per_s, share = (statistics.median(figures) for figures in zip(*rounds, strict=True))
            show(
                f"triggers through a front end, {CLIENTS} clients, {what}",
                f"{per_s:.0f}/s",
                f"no limit; {per_s / raw_per_s:.2f} of {raw_per_s:.0f} raw transactions, each with a durable write to the store/s",
            )
            show("... processor time of the front end", f"{cpu_ms:.1f} ms each", "no limit")
            show("... share of the durable write in the raw ones' time", f"{share:.0%}", "no limit")


def _trigger_round(
    settings: Settings, process: subprocess.Popen[bytes], url: str, token: str, job_of: Callable[[int], int]
) -> tuple[float, float, float, float]:
    """Triggers a second, and milliseconds of the front end's processor time for each; then as :func:`_raw_triggers`."""
    before = _processor_s(process)
    per_s = _triggers_per_s(url, token, job_of)
    cpu_ms = 1000 * (_processor_s(process) - before) / TRIGGERS
    return per_s, cpu_ms, *_raw_triggers(settings)


def _raw_triggers(settings: Settings) -> tuple[float, float]:
    """A second, of what a trigger with a key is made of at least; and the share of the write to the store in its time.

    A transaction as large, over one session as a front end has it, and a file as large, from as many threads as there are clients.
    """
    coordination, store = open_coordination(settings), open_store(settings)
    assert isinstance(store, DirectoryStore)
    write, _ = store.bare()
    tree, run = Tickets(coordination).tree, uuid.uuid4().hex[:8]
    folder, day, queue = f"/raw/{run}", int(time.time() // DAY_S), f"{paths.pool('raw', ())}/0"
    epoch = Check(paths.epoch(tree.epoch))
    for wanted in (folder, queue, *(paths.once_day(day + beside) for beside in (-1, 0, 1))):
        tree.folder(wanted)

    written_s: list[float] = []

    def trigger(client: int) -> None:
        counter = f"{folder}/{client}"
        sure(coordination.commit(Create(counter)))
        for number in range(TRIGGERS // CLIENTS):
            name = f"{run}-{client}-{number}"
            build = LiveBuild(
                BuildId(f"team/{name}", 1), uuid.uuid4().hex, 1, Trigger("manual", "benchmark"), 1
            ).to_bytes()
            ticket = replace(control_ticket(BuildId(f"team/{name}", 1), "plan"), kind="raw", posted_ms=1)
            sure(
                coordination.commit(
                    Write(counter, b'{"f":1,"last":1}'),
                    Create(f"{folder}/{name}", build),
                    *transactions.remember(name, day, name),
                    transactions.post(ticket, queue),
                    epoch,
                )
            )
            began = time.perf_counter()
            write(f"raw/{run}/{client}/{number}", build)
            written_s.append(time.perf_counter() - began)

    try:
        seconds = _seconds_of_all(trigger)
    finally:
        coordination.close()
    return TRIGGERS / seconds, sum(written_s) / (seconds * CLIENTS)


def _seconds_of_all(run: Callable[[int], None]) -> float:
    """How long as many threads take as there are clients."""
    started = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(run, range(CLIENTS)))
    return time.perf_counter() - started


def _processor_s(process: subprocess.Popen[bytes]) -> float:
    """Processor time that a process has used so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _triggers_per_s(url: str, token: str, job_of: Callable[[int], int]) -> float:
    """Each client asks one after the other, over one connection, each time with another key."""

    def run(client: int) -> None:
        with requests.Session() as session:
            address = f"{url}/api/v1/jobs/team/of-{job_of(client)}/-/builds"
            for _ in range(TRIGGERS // CLIENTS):
                told = {"Authorization": f"Bearer {token}", "Idempotency-Key": uuid.uuid4().hex}
                answer = session.post(address, headers=told, timeout=60)
                if answer.status_code != 201:
                    raise SystemExit(f"a trigger came to {answer.status_code}: {answer.text}")

    return TRIGGERS / _seconds_of_all(run)


def download(folder: Path) -> None:
    """A large artifact up and down through one front end, and through nginx before it; beside what the store does by itself."""
    with ExitStack() as stack:
        ci = stack.enter_context(distci.connect(folder))
        ci.jobs.put({"job": "big", "tasks": [{"name": "wait", "type": "shell", "script": "true"}]})
        build = ci.builds.trigger("big")
        source = folder / "source"
        sha256 = _large(source)
        with source.open("rb") as file:
            raw_up = _mb_per_s(lambda: ci.store.put(RAW_KEY, file))
        with ci.store.open(RAW_KEY) as file:
            raw_down = _mb_per_s(lambda: _expect(iter(lambda: file.read(MIB), b""), sha256))
        ci.store.delete(RAW_KEY)
        front_end, url = _front_end(stack, ["--data", str(folder)], folder)
        nginx = Nginx(folder / "nginx", [url.removeprefix("http://")])
        stack.callback(nginx.stop)
        token = ci.access.create_token("benchmark", [Action.READ, Action.WRITE]).text
        for name, what, address in (("straight", "front end", url), ("proxied", "nginx and a front end", nginx.url)):
            with requests.Session() as session:
                session.headers["Authorization"] = f"Bearer {token}"
                # Nothing that the environment names: neither whom to trust nor a proxy.
                session.trust_env = False
                session.verify = str(nginx.authority)
                place = f"{address}/api/v1/jobs/big/-/builds/1/artifacts/{name}"
                up = _mb_per_s(partial(_put, session, place, source, sha256))
                show(f"artifact of {LARGE_GIB} GiB up through {what}", f"{up:.0f} MB/s", f"store: {raw_up:.0f} MB/s")
                down = _mb_per_s(partial(_get, session, place, sha256))
                show("... and down", f"{down:.0f} MB/s", f"store: {raw_down:.0f} MB/s")
            peak_mb = _resident_mib(front_end, "VmHWM") * MIB / 1e6
            show("... memory of the front end at its peak", f"{peak_mb:.0f} MB", "under 200 MB")
            # Room for the next one.
            ci.store.delete(keys.upload(build, name, sha256))


def _large(path: Path) -> str:
    """Make a file of which no two pieces are the same; its SHA-256."""
    digest, noise = hashlib.sha256(), os.urandom(MIB - 8)
    with path.open("wb") as file:
        for number in range(LARGE_GIB * 1024):
            piece = number.to_bytes(8) + noise
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def _put(session: requests.Session, place: str, source: Path, sha256: str) -> None:
    told = base64.b64encode(bytes.fromhex(sha256)).decode()
    with source.open("rb") as file:
        answer = session.put(
            place, data=file, headers={"Content-Digest": f"sha-256=:{told}:"}, timeout=LARGE_TIME_MAX_S
        )
    if answer.status_code != 201 or answer.json()["sha256"] != sha256:
        raise SystemExit(f"{place} was answered with {answer.status_code}: {answer.text}")


def _get(session: requests.Session, place: str, sha256: str) -> None:
    with session.get(place, stream=True, timeout=LARGE_TIME_MAX_S) as answer:
        _expect(answer.iter_content(MIB), sha256)


def _expect(pieces: Iterator[bytes], sha256: str) -> None:
    digest, count = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        count += len(piece)
    if digest.hexdigest() != sha256:
        raise SystemExit(f"{count} bytes came, and not those of the artifact")


def _mb_per_s(move: Callable[[], None]) -> float:
    """How fast all of the large file was moved."""
    started = time.perf_counter()
    move()
    return LARGE_GIB * 1024**3 / 1e6 / (time.perf_counter() - started)


def _front_end(stack: ExitStack, flags: Sequence[str], folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A front end that is ready, and its address."""
    address = f"127.0.0.1:{free_port()}"
    process = stack.enter_context(_process(["frontend", "--listen", address, *flags], folder))
    wait_until(lambda: accepts(int(address.rpartition(":")[2])))
    return process, f"http://{address}"


# Checkouts


def checkout(folder: Path) -> None:
    """The second checkout of a repository on one machine beside the first, from servers on the same machine: no network is as fast."""
    remotes = _made(folder / "remotes")
    megabytes = _repository(remotes / "large") / 1e6
    secret_keys = base64.b64encode(os.urandom(32)).decode()
    settings = Settings(data=str(folder / "data"), secret_keys=secret_keys)
    with ExitStack() as stack:
        flags = ["up", "--no-frontend", "--data", settings.data]
        stack.enter_context(_process(flags, folder, DISTCI_SECRET_KEYS=secret_keys))
        base = stack.enter_context(git_daemon(remotes))
        ssh = SshServer(folder / "ssh")
        stack.callback(ssh.stop)
        ci = stack.enter_context(distci.connect(settings=settings))
        wait_until(ci.status.has_workers)
        ci.secrets.set("KEY", ssh.key)
        print(f"checkouts of {FILES:,} files and {COMMITS:,} commits, {megabytes:.0f} MB")
        for source in (
            {"repository": f"{base}/large"},
            {"repository": f"{ssh.url}{remotes}/large", "credentials": "KEY", "host_keys": [ssh.host_key]},
        ):
            ci.jobs.put({"job": "large", "tasks": [{"name": "source", "type": "git-checkout", **source}]})
            pairs = []
            for _ in range(CHECKOUTS):
                shutil.rmtree(folder / "data" / "cache", ignore_errors=True)
                pairs.append((_checkout_s(ci), _checkout_s(ci)))
            first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
            told = ", ".join(f"{second:.1f}/{first:.1f}" for first, second in pairs)
            what = f"the second by the first, from {str(source['repository']).partition(':')[0]}"
            show(what, f"{second / first:.0%}", f"at most 25 %; seconds: {told}")


def _checkout_s(ci: distci.DistCI) -> float:
    """How long the attempt at a checkout takes."""
    view = ci.builds.wait(ci.builds.trigger("large"), 300)
    if view.result is not Result.PASSED:
        raise SystemExit(f"{view.id} {view.state}: {view.tasks[0].reason}")
    attempt = view.task("source").attempts[-1]
    return float(attempt["ended_ms"] - attempt["started_ms"]) / 1000


def _repository(path: Path) -> int:
    """Make a repository of prose-like files and a history of changes to them, packed as servers keep theirs; how many bytes it has."""
    chance = random.Random(1)
    words = ["".join(chance.choices(string.ascii_lowercase, k=chance.randint(2, 10))).encode() for _ in range(20_000)]

    def lines(count: int) -> list[bytes]:
        return [b" ".join(chance.choices(words, k=10)) for _ in range(count)]

    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(path)], check=True)
    with subprocess.Popen(["git", "-C", str(path), "fast-import", "--quiet"], stdin=subprocess.PIPE) as importer:
        assert importer.stdin is not None
        write = importer.stdin.write
        # All versions of a file in a row, so that each is kept as a difference to the one before.
        for which in range(FILES):
            text = lines(chance.randint(20, 240))
            for version in range(VERSIONS):
                text[chance.randrange(len(text))] = lines(1)[0]
                data = b"\n".join(text)
                write(b"blob\nmark :%d\ndata %d\n%s\n" % (1 + which * VERSIONS + version, len(data), data))
        for number in range(1 + COMMITS):
            write(b"commit refs/heads/main\ncommitter A <a@example.org> %d +0000\ndata 0\n" % number)
            begun = (number - 1) * CHANGED_FILES
            for place in range(-FILES, 0) if number == 0 else range(begun, begun + CHANGED_FILES):
                version, which = divmod(place + FILES, FILES)
                mark = 1 + which * VERSIONS + version
                write(b"M 100644 :%d folder%03d/file%05d.txt\n" % (mark, which // 50, which))
    return sum(file.stat().st_size for file in path.rglob("*.pack"))


# Streams


def streams(folder: Path) -> None:
    """Very many open streams at one front end, and how late lines are that many follow."""
    with ExitStack() as stack:
        ci = stack.enter_context(distci.connect(folder))
        stack.enter_context(_process(["up", "--no-frontend", "--data", str(folder)], folder))
        front_end, url = _front_end(stack, ["--data", str(folder)], folder)
        wait_until(ci.status.has_workers)
        end = folder / "end"
        ci.jobs.put({"job": "prints", "tasks": [_saying(PRINTING.format(end=end, pause_s=0.05))]})
        ci.jobs.put({"job": "rests", "tasks": [_saying("echo here; sleep 3600")]})
        resting = ci.builds.trigger("rests")
        wait_until(lambda: any(ci.builds.log(resting, "say")) if ci.builds.get(resting).tasks else False)
        token = ci.access.create_token("benchmark", [Action.READ]).text
        rests = "/api/v1/jobs/rests/-/builds/1"
        alone_mib = _resident_mib(front_end)
        paths = [f"{rests}/events", f"{rests}/log/events", f"{rests}/tasks/say/log/events", "/api/v1/events"]
        with Crowd(url, paths * (STREAMS // len(paths)), token):
            begun_mib = _resident_mib(front_end)
            later = time.monotonic() + STREAMS_S
            wait_until(lambda: time.monotonic() > later, STREAMS_S + 10)
            grown = _resident_mib(front_end) - begun_mib
            show(f"memory of a front end with {STREAMS} streams", f"{begun_mib:.0f} MiB", f"{alone_mib:.0f} without")
            show(f"... how it grew in {STREAMS_S:g} s", f"{grown:.1f} MiB", "flat")
        printing = ci.builds.trigger("prints")
        wait_until(lambda: any(ci.builds.log(printing, "say")) if ci.builds.get(printing).tasks else False)
        log = "/api/v1/jobs/prints/-/builds/1/tasks/say/log/events"
        with Crowd(url, [log] * FOLLOWERS, token) as crowd:
            crowd.wait_for_lines(LINES)
            end.touch()
            crowd.wait_for_end(120)
        p50, p95 = (crowd.delays_s[int(len(crowd.delays_s) * share)] for share in (0.5, 0.95))
        figure = f"p50 {p50 * 1000:.0f} p95 {p95 * 1000:.0f} ms"
        show(f"a line to {FOLLOWERS} followers, from when it was printed", figure, "p95 under 1 s")
        ci.builds.cancel(resting)
        ci.builds.wait(resting, 60)


def _saying(script: str) -> dict[str, object]:
    return {"name": "say", "type": "shell", "script": script}


# Start


def masking(folder: Path) -> None:
    """A log that goes by 50 secrets, in pieces as they come from a pipe; then streams that hold secrets, cut at random."""
    chance = random.Random(1)
    masker = Masker(new_secrets(SECRETS, chance))
    words = [
        f"{chance.randrange(10**6):x}" if chance.random() < 0.2 else word for word in Path(__file__).read_text().split()
    ]
    texts = {
        "text": " ".join(chance.choices(words, k=MASKED_MB * 150_000)).encode()[: MASKED_MB * 10**6],
        "base64": base64.encodebytes(os.urandom(MASKED_MB * 700_000)),
        "chance": os.urandom(MASKED_MB * 10**6),
    }
    for what, data in texts.items():
        rates = [_masked_mb_per_s(masker, data) for _ in range(5)]
        show(
            f"masked {what}, {SECRETS} secrets, processor time", f"{statistics.median(rates):.0f} MB/s", "at least 200"
        )
    began = time.process_time()
    seen = [*leaks(SPLITS, seed=1)]
    show(f"{SPLITS:,} random splits in {time.process_time() - began:.0f} s", f"{len(seen)} leaks", "0")
    for leak in seen[:3]:
        print(leak)


def _masked_mb_per_s(masker: Masker, data: bytes) -> float:
    began = time.process_time()
    for start in range(0, len(data), PIPE_BYTES):
        masker.feed(data[start : start + PIPE_BYTES])
    masker.flush()
    return len(data) / 1e6 / (time.process_time() - began)


def start(folder: Path) -> None:
    """How long people wait for nothing."""
    bare, importing, using, helping = _milliseconds(
        [sys.executable, "-c", "pass"],
        [sys.executable, "-c", "import distci"],
        [sys.executable, "-c", "from distci import DistCI, connect"],
        [PROGRAM, "--help"],
    )
    show("import distci", f"{importing - bare:.0f} ms", "under 120 ms, beyond Python's own start")
    show("from distci import DistCI, connect", f"{using - bare:.0f} ms", "no limit")
    show("distci --help, whole process", f"{helping:.0f} ms", "under 250 ms")


# Isolation


def isolation(folder: Path) -> None:
    """What a command costs beyond itself in each way of isolation, beside the tool that this is made with; and a flood of output."""
    cgroups = find_cgroups()
    host, sandbox = HostIsolation(cgroups), SandboxIsolation(cgroups)
    lxc = LxcIsolation(folder / "lxc", cgroups, users=Subordinates(100_000, 100_000))
    mounts = [Mount(folder, is_writable=True, is_own=True)]
    limits = Limits(memory_bytes=1 << 30, processes=100, cpus=1)
    raw_sandbox = [
        "bwrap",
        "--unshare-all",
        "--die-with-parent",
        "--ro-bind",
        "/",
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "true",
    ]

    def through(driver: Isolation, confinement: Confinement = CONFINED) -> Callable[[], object]:
        command = Command(["true"], folder, {"PATH": os.defpath}, "bench", mounts=mounts, confinement=confinement)
        return lambda: driver.run(command, lambda data: None, Event())

    limited = Confinement(limits=limits)
    is_root = os.geteuid() == 0
    nothing, bubblewrap, on_host, in_sandbox, in_limits, in_lxc = _taken_ms(
        lambda: subprocess.run(["true"], check=True),
        lambda: subprocess.run(raw_sandbox, check=True),
        through(host),
        through(sandbox),
        through(sandbox, limited) if cgroups and not cgroups.problems(limits) else through(sandbox),
        through(lxc if is_root else host),
    )
    show("a process, by itself", f"{nothing[0]:.1f}, least {nothing[1]:.1f} ms", "reference")
    show("bubblewrap, by itself", f"{bubblewrap[0]:.1f}, least {bubblewrap[1]:.1f} ms", "reference")
    measured = {"host": on_host, "sandbox": in_sandbox, "sandbox with limits": in_limits}
    if is_root:
        measured["lxc"] = in_lxc
    for name, (median, least) in measured.items():
        limit = "under 25 ms" if name == "sandbox" else "no limit"
        show(f"{name}, beyond a process", f"{median - nothing[0]:.1f}, least {least - nothing[1]:.1f} ms", limit)
    for driver in (host, sandbox, lxc) if is_root else (host, sandbox):
        _flood(driver, folder, mounts)
    _machine(folder)


def _machine(folder: Path) -> None:
    """What a command in a virtual machine takes, from its beginning out of a memory to its end, with a workspace that is empty."""
    image = image_of(machines.Made(_made(folder / "machine")).address)
    driver = VmIsolation({image.name: image}, folder / "vms", memory_bytes=1 << 30, cpus=1)
    workspace = _made(folder / "empty")
    mounts = [Mount(workspace, is_writable=True, is_own=True)]
    confinement = Confinement(image=image.name, network=False)
    command = Command(["true"], workspace, {"PATH": os.defpath}, "bench", mounts=mounts, confinement=confinement)
    began = time.perf_counter()
    driver.run(command, lambda data: None, Event())
    first_s = time.perf_counter() - began
    [(median, least)] = _taken_ms(lambda: driver.run(command, lambda data: None, Event()))
    show("the first one, which tries KVM and boots", f"{first_s:.1f} s", "no limit")
    show("a command in a virtual machine", f"{median:.0f}, least {least:.0f} ms", "under 1500 ms")


def containers(folder: Path) -> None:
    """What a command in a container costs, beside the same of the engine's own program, for podman and for Docker."""
    mounts = [Mount(folder, is_writable=True, is_own=True)]
    confinement = Confinement(image=engines.IMAGE, network=False)
    command = Command(["true"], folder, {"PATH": os.defpath}, "bench", mounts=mounts, confinement=confinement)
    run = ["run", "--rm", "--network=none", f"--volume={folder}:{folder}", engines.IMAGE, "true"]
    with engines.running(folder) as urls:
        own = {
            "podman": (urls["podman"], Podman(folder / "podman").command(*run)),
            "Docker": (urls["docker"], ["docker", f"--host={urls['docker']}", *run]),
        }
        for name, (url, program) in own.items():
            driver = ContainerIsolation(url, folder / "ours")
            by_itself, through = _taken_ms(
                lambda program=program: subprocess.run(program, check=True),  # type: ignore[misc]
                lambda driver=driver: driver.run(command, lambda data: None, Event()),  # type: ignore[misc]
            )
            show(f"{name} run, by itself", f"{by_itself[0]:.0f}, least {by_itself[1]:.0f} ms", "reference")
            show(
                f"a command in a container of {name}",
                f"{through[0]:.0f}, least {through[1]:.0f} ms",
                "at most 1.3 times that",
            )


def _flood(driver: Isolation, folder: Path, mounts: Sequence[Mount]) -> None:
    """1 GiB of output, which the memory of whoever takes it must not grow by."""
    size, digest, count = 1 << 30, hashlib.sha256(), 0

    def take(data: bytes) -> None:
        nonlocal count
        digest.update(data)
        count += len(data)

    script = f"yes 0123456789abcde | head -c {size}"
    command = Command(["/bin/sh", "-c", script], folder, {"PATH": os.defpath}, "flood", mounts=mounts)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    ended = driver.run(command, take, Event())
    seconds = time.perf_counter() - began
    expected = hashlib.sha256()
    for _ in range(size // MIB):
        expected.update(b"0123456789abcde\n" * (MIB // 16))
    assert (ended.ok, count, digest.digest()) == (True, size, expected.digest())
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    show(
        f"1 GiB of output, {driver.types[0]}",
        f"{seconds:.1f} s, {grown_mib:.0f} MiB more",
        "under 16 MiB more; byte for byte",
    )


def _taken_ms(*calls: Callable[[], object]) -> list[tuple[float, float]]:
    """The median and the least time that each call takes, all of them in turn, the first round left out."""
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(ISOLATED):
        for call, times in zip(calls, taken, strict=True):
            started = time.perf_counter()
            call()
            times.append(1000 * (time.perf_counter() - started))
    return [(statistics.median(times[1:]), min(times[1:])) for times in taken]


def _milliseconds(*commands: Sequence[str]) -> list[float]:
    """The median time that each command takes, all of them in turn; files that they compile are there by then."""
    taken: list[list[float]] = [[] for _ in commands]
    for _ in range(STARTS):
        for command, times in zip(commands, taken, strict=True):
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times.append(1000 * (time.perf_counter() - started))
    return [statistics.median(times[1:]) for times in taken]


@contextmanager
def _process(arguments: Sequence[str], folder: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / f"{uuid.uuid4().hex}.log").open("wb") as log:
        environment = os.environ | {"DISTCI_LISTEN": "127.0.0.1:0"} | variables
        process = subprocess.Popen([PROGRAM, *arguments], stdout=log, stderr=log, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _zxid(servers: ZooKeeperServers | None) -> int:
    """The number of the last write that the server saw; 0 without a server."""
    found = re.search(r"Zxid: 0x([0-9a-f]+)", servers.ask(0, "srvr")) if servers else None
    return int(found[1], 16) & 0xFFFFFFFF if found else 0


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
