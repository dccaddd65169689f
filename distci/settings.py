"""What a DistCI process is told from outside: file, then environment, then flags; later ones win.

::

    # distci.toml
    coordination = "zookeeper://zk1:2181,zk2:2181,zk3:2181/distci"   # default: sqlite in the data folder
    store = "s3://ci-builds?endpoint_url=http://rgw:8080"            # default: a directory in the data folder
    data = "/var/lib/distci"
    session_timeout = "10s"
    search_path = "/usr/local/bin:/usr/bin:/bin"
    isolation = "sandbox"
    sandbox_paths = "/srv/toolchains:/nix"
    container_engine = "unix:///run/podman/podman.sock"
    container_network = "builds"
    lxc_images = "/srv/images"
    listen = "127.0.0.1:8420"
    public_url = "https://ci.example.org"
    build_url = "https://ci.example.org/builds/{build}"
    zookeeper_user = "ci"
    zookeeper_password = "..."
    zookeeper_ca = "/etc/distci/zookeeper-ca.pem"
    zookeeper_certificate = "/etc/distci/worker.crt"
    zookeeper_key = "/etc/distci/worker.key"
    oidc_issuer = "https://id.example.org/realms/ci"
    oidc_client_id = "distci"
    oidc_client_secret = "..."
    oidc_roles = "group:ci-admins=owner; *@example.org=viewer@team"
    untrusted_builds = "hold"
    artifact_size_max = "16GiB"
    workspace_size_max = "16GiB"
    cache_size_max = "10GiB"
    events_kept = "100000/90d"
    held_kept = "1000/30d"
    secret_keys_file = "/etc/distci/secret-keys"

    [receivers.github]                                               # variables: DISTCI_RECEIVERS_GITHUB_SECRETS ...
    secrets = ["the webhook's new secret", "the old one"]
    token = "..."
    api_url = "https://github.example.org/api/v3"

    [secret_providers.vault]
    url = "https://vault.example.org"
    path = "secret/data/distci"
    token_file = "/run/distci/vault-token"

Or, where somebody works through a front end instead of on the back ends::

    url = "https://ci.example.org"
    token_file = "/home/ada/.config/distci/token"
    ca = "/etc/ssl/our-ca.pem"

Every setting has a variable, ``DISTCI_COORDINATION`` and so on. Nothing else in DistCI reads the environment.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from distci.errors import InvalidSettings
from distci.model import BuildId
from distci.retention import Retention

SYSTEM_FILE = Path("/etc/distci/distci.toml")
PREFIX = "DISTCI_"
COORDINATION_SCHEMES = ("zookeeper", "sqlite")
STORE_SCHEMES = ("s3", "rados", "file")
OPTIONS = {"s3": ("endpoint_url", "access_key", "secret_key", "region"), "rados": ("conf", "name")}
"""What may stand after the ``?`` of a URL, by scheme; of other schemes nothing may."""
CREDENTIALS = (
    *("zookeeper_user", "zookeeper_password", "zookeeper_ca", "zookeeper_certificate", "zookeeper_key"),
    *("secret_keys", "secret_keys_file"),
)
"""Settings that say who we are and what we may open, whichever back ends are named."""
REMOTE = ("token", "token_file", "ca", "allow_http", "patience")
"""Settings that say how we come to a front end, whichever is named."""
NEEDS = (
    ("zookeeper_user", "zookeeper_password"),
    ("zookeeper_password", "zookeeper_user"),
    ("zookeeper_certificate", "zookeeper_key"),
    ("zookeeper_key", "zookeeper_certificate"),
    ("zookeeper_certificate", "zookeeper_ca"),
    ("oidc_issuer", "oidc_client_id"),
    ("oidc_issuer", "oidc_client_secret"),
    ("oidc_client_id", "oidc_issuer"),
    ("oidc_client_secret", "oidc_issuer"),
)
"""Settings that say nothing without another."""
TABLES = ("receivers", "secret_providers", "origins")
"""What is no text."""
SECRET_FOLDER = "/dev/shm"

_URL = re.compile(r"(?:([^:/?#]+):)?(?://([^/?]*))?([^?]*)(?:\?(.*))?", re.DOTALL)
"""RFC 3986, appendix B, without fragments. Of several hosts, the standard library refuses some that have brackets."""

WEB_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#@]*)?")
HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
ISSUER = re.compile(
    r"https://[^\s/?#@]+(?:/[^\s?#]*)?|http://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]+)?(?:/[^\s?#]*)?"
)
PASSWORD = re.compile(r"[!-~]+")
"""What ZooKeeper understands the same way whatever the locale that it was started in, and what may stand in a header."""
YES, NO = "yes", "no"
LOOPBACK_NAME = "localhost"
LISTEN = "127.0.0.1:8420"
API = "/api/v1"
UNTRUSTED = ("hold", "run")
ISOLATIONS = ("sandbox", "host", "container", "lxc", "vm")
VM_ACCELERATORS = ("", "kvm", "tcg")
VM_IMAGE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)=(/[^@\s]*)@sha256:([0-9a-f]{64})")
BUILD_PAGE = "/jobs/{job}/-/builds/{number}"
"""Where a front end shows a build."""
LOGIN_PAGE = "/login/link"
"""Where a login link leads, with what lets somebody in behind a ``#``: browsers tell that to no server, so it is in no log and no Referer."""
RECEIVER = re.compile(r"[a-z][a-z0-9.-]*")
RECEIVERS_PREFIX = f"{PREFIX}RECEIVERS_"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Address:
    """A back end's URL, taken apart."""

    scheme: str
    host: str
    path: str
    options: Mapping[str, str]

    @property
    def place(self) -> tuple[str, ...]:
        """What two addresses of one place have in common: not by whom it is asked."""
        path = str(Path(self.path).resolve()) if self.scheme == "file" else self.path.strip("/")
        return (self.scheme, self.host, path, *(self.options.get(name, "") for name in ("endpoint_url", "conf")))


@dataclass(frozen=True, slots=True)
class ReceiverSettings:
    """What is between us and one sort of sender. Never shown."""

    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Any of them proves a sender; several while one takes the place of another."""
    token: str = field(default="", repr=False)
    """With which commit statuses are told; empty: none are."""
    api_url: str = ""
    """Where they are told to; empty: the receiver's usual place."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, with their defaults: an embedded system in the data folder."""

    coordination: str = ""
    """``zookeeper://host:port,host:port/root`` or ``sqlite:///path``; empty: ``coordination.sqlite`` in the data folder."""
    store: str = ""
    """``s3://bucket/prefix?endpoint_url=...``, ``rados://pool/namespace`` or ``file:///path``; empty: ``store`` in the data folder."""
    data: str = ""
    """Folder of the embedded back ends and of scratch space."""
    session_timeout: str = "10s"
    """How long a silent process keeps its claims."""
    search_path: str = SEARCH_PATH
    """``PATH`` of the scripts that tasks run."""
    isolation: str = ""
    """What tasks may run in, what is preferred first: ``sandbox``, ``host``, ``container``, ``lxc``, ``vm``; empty: all, in an order that depends on the command."""
    sandbox_paths: str = ""
    """Folders besides the usual ones that commands in a sandbox see, and in a container of either sort, read-only, with colons between."""
    container_engine: str = ""
    """Socket of an engine on this machine that speaks Docker's API, as ``unix:///path``; empty: the first one found where engines listen."""
    container_network: str = ""
    """Name of the engine's network for containers that may have one; empty: its own default."""
    lxc_images: str = ""
    """Folder that has root file systems, a folder each, which tasks may name as the image of an LXC container."""
    vm_images: str = ""
    """Images of virtual machines, as ``NAME=/folder@sha256:CHECKSUM``, with spaces between. ``deploy/vm-image`` makes one, and prints this."""
    vm_memory: str = "1GiB"
    """What each virtual machine has, files included."""
    vm_cpus: str = "1"
    """How many processors each has."""
    vm_accelerator: str = ""
    """``kvm``, or ``tcg``, which emulates the processor; empty: KVM where a machine boots with it."""
    listen: str = LISTEN
    """Where a front end is found, as ``host:port``; port 0 takes one that is free."""
    build_url: str = ""
    """Where people find a build, with ``{build}`` for its id, or ``{job}`` and ``{number}``; by default below :attr:`public_url`."""
    public_url: str = ""
    """Where people find a front end."""
    untrusted_builds: str = "hold"
    """What becomes of a change by somebody without rights to the repository: ``hold`` it until somebody approves it, or ``run`` it."""
    delivery_rate: str = "600/m"
    """How often one address may tell each front end of changes: ``20/s``, ``600/m``; empty: as often as it likes. Deliveries without a proof are counted apart."""
    request_rate: str = ""
    """How often somebody may ask each front end, or one address whom nobody knows; empty: as often as they like."""
    artifact_size_max: str = "16GiB"
    """The largest file that a front end takes in as an artifact, of a client or a worker: ``500MiB``, ``16GiB``."""
    workspace_size_max: str = "16GiB"
    """The largest workspace that a front end takes in of a worker, as it is sent and once it is unpacked."""
    cache_size_max: str = "10GiB"
    """How much a machine keeps between tasks, all its workers together: of repositories that were checked out, so that less of them is fetched; empty: nothing."""
    diagnose_after: str = "10m"
    """After so long a silence of a task's script its log tells what the processes do, unless the task says after how long; empty: never."""
    hold_max: str = ""
    """How long this machine's workers hold a failed task that asks for it, at most, and with it one of their slots; empty: never."""
    events_kept: str = "100000/90d"
    """How many events are kept, and for how long: ``100000/90d``. The last 1,000 are, in any case."""
    held_kept: str = "1000/30d"
    """How many changes wait for an approval, and for how long: beyond either, the oldest waits no longer."""
    trusted_proxies: str = ""
    """Proxies before the front ends, as addresses and networks with spaces between: they say by ``X-Forwarded-For`` who asks; empty: nobody is believed."""
    actor: str = ""
    """Who is asking, for the record."""
    url: str = ""
    """The front end to work through, instead of on the back ends: ``https://host``, or ``http://`` on this machine; empty: none.
    Several, with spaces between: where one is away, the next is asked."""
    token: str = field(default="", repr=False)
    """What says there who we are."""
    token_file: str = ""
    """File that has it where ``token`` is empty, alone in its first line."""
    ca: str = ""
    """PEM file of the authority that signs that front end's certificate, where it is none of those that are known everywhere."""
    allow_http: str = NO
    """``yes``: by ``http://`` to other machines, too. Whoever is between reads the token."""
    zookeeper_user: str = ""
    """Whom the nodes in ZooKeeper belong to, and nobody else may read or write; empty: all may."""
    zookeeper_password: str = field(default="", repr=False)
    """That user's."""
    zookeeper_ca: str = ""
    """PEM file of the authority that signs ZooKeeper's certificates; connections are by TLS when it is set."""
    zookeeper_certificate: str = ""
    """PEM file of the certificate to show to ZooKeeper."""
    zookeeper_key: str = ""
    """PEM file of its key, without a passphrase."""
    oidc_issuer: str = ""
    """The OpenID Connect provider that people log in by: its address, just as its tokens have it; empty: nobody logs in by one."""
    oidc_client_id: str = ""
    """What this DistCI is called there."""
    oidc_client_secret: str = field(default="", repr=False)
    """What it shows there."""
    oidc_scopes: str = "openid email profile"
    """What it asks to be told of people."""
    oidc_groups: str = "groups"
    """The claim that has a person's groups."""
    oidc_roles: str = ""
    """Roles besides those on record: ``group:ci-admins=owner; *@example.org=viewer@team``."""
    patience: str = "60s"
    """How long a call to a front end goes on asking while nobody answers."""
    secret_keys: str = field(default="", repr=False)
    """Master keys that secrets are kept under, each 32 bytes as base64, with spaces between: the first seals, all of them open."""
    secret_keys_file: str = ""
    """File that has them where ``secret_keys`` is empty, one a line."""
    secret_folder: str = SECRET_FOLDER
    """Where secrets are that tasks get as files: a folder in memory (tmpfs)."""
    history: str = ""
    """File that every commit and every write to the store is put down in, for ``distci chaos``; empty: none is."""
    receivers: Mapping[str, ReceiverSettings] = field(default_factory=dict, repr=False)
    """By the name of the receiver."""
    secret_providers: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    """Who else has values of secrets, by name: what each is told (:mod:`distci.providers`)."""
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Where each setting came from, for messages."""

    @property
    def data_folder(self) -> Path:
        return Path(self.data).expanduser().absolute()

    @property
    def isolation_types(self) -> Sequence[str]:
        """What is allowed by the setting; empty where it says nothing."""
        return self.isolation.split()

    @property
    def expected_isolation_types(self) -> Sequence[str]:
        """What is missed where it cannot be had: what is allowed by name; where nothing is, what images are named for."""
        named_for = {"lxc": self.lxc_images, "vm": self.vm_images}
        return self.isolation_types or [name for name, images in named_for.items() if images]

    @property
    def visible_paths(self) -> Sequence[str]:
        return [path for path in self.sandbox_paths.split(":") if path]

    @property
    def machine_images(self) -> Mapping[str, tuple[str, str]]:
        """The folder of each image of virtual machines, and its checksum, by its name. ValueError for what is none."""
        found = {}
        for text in self.vm_images.split():
            match = VM_IMAGE.fullmatch(text)
            if not match:
                raise ValueError(
                    f"{text!r} is no image: write NAME=/folder@sha256:CHECKSUM, as deploy/vm-image prints it"
                )
            found[match[1]] = match[2], match[3]
        return found

    @property
    def machine_memory_bytes(self) -> int:
        return _bytes(self.vm_memory)

    @property
    def machine_cpus(self) -> int:
        """ValueError for none."""
        if not re.fullmatch(r"[1-9][0-9]{0,2}", self.vm_cpus):
            raise ValueError(f"{self.vm_cpus!r} is no number of processors; write for example 2")
        return int(self.vm_cpus)

    @property
    def build_pages(self) -> str:
        """What :func:`page` makes the place of a build of."""
        below = f"{self.public_url.rstrip('/')}{BUILD_PAGE}" if self.public_url else ""
        return self.build_url or below

    @property
    def diagnose_after_s(self) -> float:
        """Infinite for never."""
        return _seconds(self.diagnose_after) if self.diagnose_after else math.inf

    @property
    def hold_max_s(self) -> float:
        """0 for never."""
        return _seconds(self.hold_max) if self.hold_max else 0.0

    @property
    def session_timeout_s(self) -> float:
        return _seconds(self.session_timeout)

    @property
    def patience_s(self) -> float:
        return _seconds(self.patience)

    @property
    def artifact_bytes_max(self) -> int:
        return _bytes(self.artifact_size_max)

    @property
    def workspace_bytes_max(self) -> int:
        return _bytes(self.workspace_size_max)

    @property
    def cache_bytes_max(self) -> int:
        return _bytes(self.cache_size_max) if self.cache_size_max else 0

    @property
    def events_retention(self) -> Retention:
        return Retention.parse(self.events_kept)

    @property
    def held_retention(self) -> Retention:
        return Retention.parse(self.held_kept)

    @property
    def coordination_address(self) -> Address:
        return address(self.coordination or f"sqlite://{quote(str(self.data_folder / 'coordination.sqlite'))}")

    @property
    def urls(self) -> Sequence[str]:
        """Each of ``url``."""
        return self.url.split()

    @property
    def url_hosts(self) -> Sequence[str]:
        """The machines that these are of."""
        return [_host(url) for url in self.urls]

    @property
    def store_address(self) -> Address:
        return address(self.store or f"file://{quote(str(self.data_folder / 'store'))}")

    def is_store_of(self, other: Settings) -> bool:
        """Whether both name one store, for all that can be told without asking it."""
        return self.store_address.place == other.store_address.place

    def problems(self) -> list[str]:
        """All that is wrong, each with the place where it was said; empty when the settings can be used."""
        found = []
        if not self.data and not self.url:
            found.append(f"{self.origin('data')}: no data folder; give --data DIR or set {PREFIX}DATA")
        schemes = {"coordination": COORDINATION_SCHEMES, "store": STORE_SCHEMES}
        for name, known in schemes.items():
            url = getattr(self, name)
            if url:
                found += [f"{self.origin(name)}: {problem}" for problem in _url_problems(url, known)]
        readable: dict[str, Callable[[str], object]] = {
            "session_timeout": _seconds,
            "patience": _seconds,
            "artifact_size_max": _bytes,
            "workspace_size_max": _bytes,
            "events_kept": Retention.parse,
            "held_kept": Retention.parse,
        }
        if self.cache_size_max:
            readable["cache_size_max"] = _bytes
        if self.diagnose_after:
            readable["diagnose_after"] = _seconds
        if self.hold_max:
            readable["hold_max"] = _seconds
        for name, read in readable.items():
            try:
                read(getattr(self, name))
            except ValueError as error:
                found.append(f"{self.origin(name)}: {error}")
        for name, take in {
            "vm_images": "machine_images",
            "vm_memory": "machine_memory_bytes",
            "vm_cpus": "machine_cpus",
        }.items():
            try:
                getattr(self, take)
            except ValueError as error:
                found.append(f"{self.origin(name)}: {error}")
        urls = {"public_url": self.public_url}
        urls |= {f"receivers.{name}.api_url": receiver.api_url for name, receiver in self.receivers.items()}
        found += [
            f"{self.origin(name)}: must be a URL that begins with https:// or http://, without user and password"
            for name, url in urls.items()
            if url and not WEB_URL.fullmatch(url)
        ]
        try:
            networks(self.trusted_proxies)
        except ValueError as error:
            found.append(f"{self.origin('trusted_proxies')}: {error}; write for example 127.0.0.1 10.0.0.0/8")
        if self.untrusted_builds not in UNTRUSTED:
            found.append(f"{self.origin('untrusted_builds')}: must be {' or '.join(UNTRUSTED)}")
        for name in self.isolation_types:
            if name not in ISOLATIONS:
                found.append(f"{self.origin('isolation')}: {name!r} is none of {', '.join(ISOLATIONS)}")
        for path in self.visible_paths:
            if not path.startswith("/"):
                found.append(f"{self.origin('sandbox_paths')}: {path!r} must be an absolute path")
        if self.lxc_images and not self.lxc_images.startswith("/"):
            found.append(f"{self.origin('lxc_images')}: {self.lxc_images!r} must be an absolute path")
        if self.container_engine and not self.container_engine.startswith("unix:///"):
            found.append(
                f"{self.origin('container_engine')}: must be a socket of this machine, such as unix:///run/podman/podman.sock"
            )
        if self.vm_accelerator not in VM_ACCELERATORS:
            found.append(
                f"{self.origin('vm_accelerator')}: must be {' or '.join(filter(None, VM_ACCELERATORS))}, or empty"
            )
        if self.oidc_issuer and not ISSUER.fullmatch(self.oidc_issuer):
            found.append(f"{self.origin('oidc_issuer')}: must begin with https://, or with http:// on this machine")
        return found + self._credential_problems() + [*self._receiver_problems()] + self._remote_problems()

    def _receiver_problems(self) -> Iterator[str]:
        """Never with a secret."""
        for name, receiver in self.receivers.items():
            for key, texts in (("secrets", receiver.secrets), ("token", (receiver.token,) if receiver.token else ())):
                if not all(map(PASSWORD.fullmatch, texts)):
                    yield f"{self.origin(f'receivers.{name}.{key}')}: must be printable ASCII without spaces"

    def _remote_problems(self) -> list[str]:
        """Never with a URL, which may have a password in it, nor with a token."""
        found = []
        plain = [host for url, host in zip(self.urls, self.url_hosts, strict=True) if url.startswith("http:")]
        exposed = [host for host in plain if self.allow_http != YES and not is_loopback(host)]
        if self.url and not (self.urls and all(map(WEB_URL.fullmatch, self.urls))):
            found.append(
                f"{self.origin('url')}: must be a URL that begins with https://, or on this machine with http://, without user, password, ? and #"
            )
        elif any(url.rstrip("/").endswith(API) for url in self.urls):
            found.append(f"{self.origin('url')}: leave out {API}; a front end's address is what stands before it")
        elif exposed:
            found.append(
                f"{self.origin('url')}: by http:// everybody between here and {exposed[0]} can read the token and change what is sent; "
                f"write https://, or say allow_http = {YES} ({PREFIX}ALLOW_HTTP) where that does not matter"
            )
        if self.allow_http not in (YES, NO):
            found.append(f"{self.origin('allow_http')}: must be {YES} or {NO}")
        if self.token and not PASSWORD.fullmatch(self.token):
            found.append(f"{self.origin('token')}: must be printable ASCII without spaces")
        return found

    def _credential_problems(self) -> list[str]:
        """Never with a value, which may be a password in the wrong place."""
        found = []
        if self.zookeeper_user and not USER.fullmatch(self.zookeeper_user):
            found.append(f"{self.origin('zookeeper_user')}: must be up to 64 letters, digits, '.', '_', '@', '-'")
        if self.zookeeper_password and not PASSWORD.fullmatch(self.zookeeper_password):
            found.append(f"{self.origin('zookeeper_password')}: must be printable ASCII without spaces")
        for name, needed in NEEDS:
            if getattr(self, name) and not getattr(self, needed):
                found.append(f"{self.origin(name)}: needs {needed} besides")
        return found

    def origin(self, name: str) -> str:
        """Where a setting was said."""
        return self.origins.get(name, name)


def load(
    file: Path | None,
    environment: Mapping[str, str],
    flags: Mapping[str, str | None],
    called: Callable[[str], str] = lambda name: f"--{name.replace('_', '-')}",
) -> Settings:
    """Settings from a TOML file (if given), the environment and flags (None: not given). ``called`` tells what a flag is to whoever gave it.

    The data folder is ``$XDG_DATA_HOME/distci`` or ``~/.local/share/distci`` unless one of these says otherwise.

    Raises InvalidSettings that names every problem: unreadable file, unknown key, unusable value.
    """
    names = [item.name for item in fields(Settings) if item.name not in TABLES]
    values = _defaults(environment)
    origins: dict[str, str] = {}
    problems: list[str] = []
    receivers: dict[str, ReceiverSettings] = {}
    providers: dict[str, Mapping[str, str]] = {}
    if file is not None:
        told, unreadable = _read(file)
        problems += unreadable
        for key, value in told.items():
            if key == "receivers":
                receivers = _receivers(value, file, origins, problems)
            elif key == "secret_providers":
                providers = _providers(value, file, problems)
            elif key not in names:
                problems.append(f"{file}: unknown setting {key!r}{_hint(key, names)}")
            elif not isinstance(value, str):
                problems.append(f"{file}: {key} must be a text in quotes")
            else:
                values[key], origins[key] = value, f"{file}: {key}"
    for name in names:
        variable = f"{PREFIX}{name.upper()}"
        if environment.get(variable):
            values[name], origins[name] = environment[variable], variable
        flag = flags.get(name)
        if flag is not None:
            values[name], origins[name] = flag, called(name)
    for variable, name, key in _receiver_variables(environment):
        value = environment[variable]
        given: dict[str, Any] = {key: tuple(value.split()) if key == "secrets" else value}
        receivers[name] = replace(receivers.get(name, ReceiverSettings()), **given)
        origins[f"receivers.{name}.{key}"] = variable
    settings = Settings(**values, receivers=receivers, secret_providers=providers, origins=origins)
    problems += settings.problems()
    if problems:
        raise InvalidSettings("these settings cannot be used:", problems)
    return settings


def argument_of_connect(name: str) -> str:
    """What a flag is to whoever calls a function ``connect``."""
    return f"connect({name}=...)"


def token_of(settings: Settings) -> str:
    """The token to show to a front end, from the settings or from their file; empty for none. InvalidSettings names a file that has none."""
    if settings.token or not settings.token_file:
        return settings.token
    place = f"{settings.origin('token_file')}: {settings.token_file}"
    try:
        token = Path(settings.token_file).expanduser().read_text().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings("there is no token:", [f"{place}: {getattr(error, 'strerror', 'not a text')}"]) from error
    if not PASSWORD.fullmatch(token):
        raise InvalidSettings(
            "there is no token:",
            [f"{place}: its first line must be what `distci token create` printed and nothing else"],
        )
    return token


def secret_keys_of(settings: Settings) -> Sequence[str]:
    """The master keys of secrets, from the settings or from their file; none where neither says any. InvalidSettings names a file that cannot be read."""
    if settings.secret_keys or not settings.secret_keys_file:
        return settings.secret_keys.split()
    try:
        return Path(settings.secret_keys_file).expanduser().read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        place = f"{settings.origin('secret_keys_file')}: {settings.secret_keys_file}"
        raise InvalidSettings(
            "there is no master key of secrets:", [f"{place}: {getattr(error, 'strerror', 'not a text')}"]
        ) from None


def find_file(environment: Mapping[str, str]) -> Path | None:
    """The settings file of a user or a machine: ``DISTCI_CONFIG``, the user's own, or the system's; None where there is none."""
    if environment.get("DISTCI_CONFIG"):
        return Path(environment["DISTCI_CONFIG"])
    folder = environment.get("XDG_CONFIG_HOME") or f"{environment.get('HOME', '')}/.config"
    return next((file for file in (Path(folder, "distci/distci.toml"), SYSTEM_FILE) if file.exists()), None)


def page(pattern: str, build: BuildId) -> str:
    """Where people find a build: the pattern with ``{build}``, ``{job}`` and ``{number}`` filled in; empty when that is empty."""
    filled = {"build": quote(str(build)), "job": quote(build.job), "number": str(build.number)}
    return re.sub(r"\{(build|job|number)\}", lambda match: filled[match[1]], pattern)


def address(url: str) -> Address:
    """Take a URL apart; ValueError for what is none. Hosts of ``zookeeper://`` may be many, with commas between."""
    found = _URL.fullmatch(url)
    assert found
    scheme, hosts, path, query = (part or "" for part in found.groups())
    if hosts.count("[") != hosts.count("]"):
        raise ValueError("a bracket is missing")
    return Address(scheme.lower(), hosts, unquote(path), dict(parse_qsl(query)))


def with_path(url: str, end: str, otherwise: str = "") -> str:
    """The same URL with ``end`` at the end of its path, or of ``otherwise`` where it has none."""
    found = _URL.fullmatch(url)
    assert found
    start, stop = found.span(3)
    return f"{url[:start]}{found[3].rstrip('/') or otherwise}{end}{url[stop:]}"


def networks(text: str) -> Sequence[IPv4Network | IPv6Network]:
    """The networks that a setting names; ValueError for what is none."""
    return tuple(map(ip_network, text.split()))


def is_loopback(host: str) -> bool:
    """Whether nobody from elsewhere can reach a listener on that host."""
    if host == LOOPBACK_NAME:
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _host(url: str) -> str:
    """The machine that a URL is of; empty where it is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _defaults(environment: Mapping[str, str]) -> dict[str, str]:
    """A data folder of the user's own, where the environment says who that is."""
    shared = environment.get("XDG_DATA_HOME") or (
        f"{environment['HOME']}/.local/share" if environment.get("HOME") else ""
    )
    return {"data": f"{shared}/distci"} if shared else {}


def _receivers(value: object, file: Path, origins: dict[str, str], problems: list[str]) -> dict[str, ReceiverSettings]:
    """The tables ``[receivers.NAME]`` of a file; what is wrong with them is added to the problems, without any value."""
    keys = [item.name for item in fields(ReceiverSettings)]
    found: dict[str, ReceiverSettings] = {}
    if not isinstance(value, dict) or not all(isinstance(table, dict) for table in value.values()):
        problems.append(f"{file}: receivers must be tables, as in [receivers.github]")
        return found
    for name, table in value.items():
        told: dict[str, Any] = {}
        if not RECEIVER.fullmatch(name):
            problems.append(f"{file}: receivers: {name!r} is no name of a receiver")
        for key, item in table.items():
            texts = [item] if isinstance(item, str) else item
            if key not in keys:
                problems.append(f"{file}: receivers.{name}: unknown setting {key!r}{_hint(key, keys)}")
            elif not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                problems.append(f"{file}: receivers.{name}.{key} must be a text in quotes, or a list of them")
            elif key != "secrets" and len(texts) != 1:
                problems.append(f"{file}: receivers.{name}.{key} must be one text in quotes")
            else:
                told[key] = tuple(texts) if key == "secrets" else texts[0]
                origins[f"receivers.{name}.{key}"] = f"{file}: receivers.{name}.{key}"
        found[name] = ReceiverSettings(**told)
    return found


def _providers(value: object, file: Path, problems: list[str]) -> dict[str, Mapping[str, str]]:
    """The tables ``[secret_providers.NAME]`` of a file; what they may hold is for the providers to say."""
    tables = value.items() if isinstance(value, dict) else ()
    found: dict[str, Mapping[str, str]] = {name: table for name, table in tables if isinstance(table, dict)}
    if len(found) != len(tables) or not isinstance(value, dict):
        problems.append(f"{file}: secret_providers must be tables, as in [secret_providers.vault]")
    for name, table in found.items():
        if not all(isinstance(item, str) for item in table.values()):
            problems.append(f"{file}: secret_providers.{name}: all that it is told must be texts in quotes")
    return found


def _receiver_variables(environment: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """The variables that say something of receivers, with the receiver's name (``__`` for its dots, ``_`` for its dashes) and the key."""
    for variable, value in environment.items():
        if not variable.startswith(RECEIVERS_PREFIX) or not value:
            continue
        for key in (item.name for item in fields(ReceiverSettings)):
            name = variable.removeprefix(RECEIVERS_PREFIX).removesuffix(f"_{key.upper()}")
            if variable.endswith(f"_{key.upper()}") and name:
                yield variable, name.lower().replace("__", ".").replace("_", "-"), key


def _url_problems(url: str, schemes: tuple[str, ...]) -> list[str]:
    # What stands after the question mark may be secret.
    shown = repr(url.partition("?")[0])
    try:
        parts = address(url)
    except ValueError as error:
        return [f"{shown} is not a URL: {error}"]
    if parts.scheme not in schemes:
        return [f"{shown} must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}"]
    problems = []
    if parts.scheme == "zookeeper":
        wrong = [host for host in parts.host.split(",") if not HOST.fullmatch(host)]
        problems += [f"{shown}: {host!r} is no host; write host:port, with commas between several" for host in wrong]
    elif parts.scheme == "s3":
        if not parts.host:
            problems.append(f"{shown} names no bucket")
        if not parts.options.get("endpoint_url", "https://").startswith(("http://", "https://")):
            problems.append(f"{shown}: endpoint_url must begin with http:// or https://")
    elif parts.scheme == "rados":
        if not parts.host:
            problems.append(f"{shown} names no pool")
        if not parts.options.get("name", "client.").startswith("client."):
            problems.append(f"{shown}: name must be that of a Ceph user, as in client.distci")
        if not parts.options.get("conf", "/").startswith("/"):
            problems.append(f"{shown}: conf must be an absolute path")
    elif parts.host or not parts.path.strip("/"):
        problems.append(f"{shown} needs an absolute path after three slashes, as in {parts.scheme}:///var/lib/distci")
    known = OPTIONS.get(parts.scheme, ())
    return problems + [
        f"{shown}: unknown option {key!r}{_hint(key, known)}" for key in parts.options if key not in known
    ]


def _hint(word: str, known: Sequence[str]) -> str:
    return "".join(f"; did you mean {close!r}?" for close in get_close_matches(word, known, 1))


def _read(file: Path) -> tuple[Mapping[str, object], list[str]]:
    """What a file says, and what is wrong with it as a whole."""
    try:
        return tomllib.loads(file.read_text()), []
    except OSError as error:
        return {}, [f"{file}: {error.strerror}"]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return {}, [f"{file}: not TOML: {error}"]


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)", text)
    if not match or not float(match[1]):
        raise ValueError(f"{text!r} is no length of time; write for example 10s")
    return float(match[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[match[2]]


def _bytes(text: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,5})(KiB|MiB|GiB|TiB)", text)
    if not match:
        raise ValueError(f"{text!r} is no size; write for example 16GiB")
    return int(match[1]) << {"KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}[match[2]]
