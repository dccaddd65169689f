"""Podman with a storage of its own, and a base image made of this machine's own packages: no registry is asked for anything."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

PACKAGES = (
    *("base-files", "base-passwd", "bash", "ca-certificates", "coreutils", "dash", "debianutils", "findutils", "git"),
    *("git-lfs", "grep", "gzip", "hostname", "libc-bin", "openssh-client", "python3", "python3-venv", "sed", "tar"),
)
NOT_NEEDED = re.compile(r"perl.*|debconf")
"""Packages that the ones above ask for, and that nothing here runs."""
LEFT_OUT = re.compile(r"/usr/share/(doc|info|lintian|locale|man|perl5)/|/(dev|proc|run|sys|var)/")
ALWAYS = ("/bin", "/lib", "/lib64", "/sbin", "/tmp")
COMMAND_TIME_MAX_S = 300

CONFIGURATION = """\
[containers]
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""
"""Works where there is no systemd, where control groups are of both versions, and where limits cannot be raised."""


class Podman:
    """The program, with images and containers in a folder."""

    def __init__(self, folder: Path, without_tls: str = "") -> None:
        """``without_tls`` is a registry that is spoken to so."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        configuration = folder / "containers.conf"
        files, processes = (resource.getrlimit(limit)[1] for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
        configuration.write_text(CONFIGURATION.format(files=files, processes=min(processes, 32768)))
        places = {name: str(folder / name) for name in ("root", "runroot", "tmpdir")}
        options = [*(f"--{name}={path}" for name, path in places.items()), "--log-level=fatal"]
        registries = folder / "registries.conf"
        registries.write_text(f'[[registry]]\nlocation = "{without_tls}"\ninsecure = true\n' if without_tls else "")
        told = [f"CONTAINERS_CONF={configuration}", f"CONTAINERS_REGISTRIES_CONF={registries}"]
        self._command = ["env", *told, "podman", *options]

    def command(self, *arguments: str) -> list[str]:
        """What runs it, for whoever does that."""
        return [*self._command, *arguments]

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run it to its end, whatever that is."""
        settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": COMMAND_TIME_MAX_S} | options
        return subprocess.run(self.command(*arguments), check=False, **settings)

    def __call__(self, *arguments: str, **options: Any) -> str:
        """Run it, and give what it printed."""
        ran = self.run(*arguments, **options)
        assert ran.returncode == 0, f"podman {' '.join(arguments)}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout.strip()

    def import_base(self, name: str, packages: Iterable[str] = PACKAGES) -> None:
        """Make an image of this machine's own files of some packages, and of what they depend on."""
        archive = self._folder / "base.tar"
        files = "".join(f"{path.lstrip('/')}\n" for path in files_of(packages))
        tar = ["tar", "-C", "/", "--no-recursion", "--files-from=-", "-cf", str(archive)]
        subprocess.run(tar, input=files, text=True, check=True)
        made = self._folder / "made" / "etc"
        made.mkdir(parents=True)
        (made / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/sh\n")
        (made / "group").write_text("root:x:0:\ndaemon:x:1:\n")
        (made.parent / "opt").mkdir()
        added = ["etc/passwd", "etc/group", "opt"]
        subprocess.run(["tar", "-C", str(made.parent), "-rf", str(archive), *added], check=True)
        self("import", str(archive), name)
        archive.unlink()

    def close(self) -> None:
        """Remove all containers and images."""
        self.run("rm", "--all", "--force", "--time=0", "--volumes")
        self.run("rmi", "--all", "--force")
        shutil.rmtree(self._folder, ignore_errors=True)


def files_of(packages: Iterable[str]) -> list[str]:
    """Those of this machine that belong to some packages, and to what these depend on."""
    return _files(_closure(packages))


def _closure(packages: Iterable[str]) -> set[str]:
    """These installed packages, and those that they cannot do without."""
    installed, providers = _installed()
    found: set[str] = set()
    wanted = [*packages]
    while wanted:
        package = wanted.pop()
        package = package if package in installed else providers[package]
        if package not in found and not NOT_NEEDED.fullmatch(package):
            found.add(package)
            choices = [choice for choice in installed[package] if choice]
            wanted += [next(name for name in names if name in installed or name in providers) for names in choices]
    return found


def _installed() -> tuple[Mapping[str, list[list[str]]], Mapping[str, str]]:
    """What each installed package depends on, one list of choices each; and who provides what."""
    fields = "${Package}\t${Pre-Depends}, ${Depends}\t${Provides}\t${db:Status-Status}\n"
    asked = subprocess.run(
        ["dpkg-query", "--show", f"--showformat={fields}"], capture_output=True, text=True, check=True
    )
    installed: dict[str, list[list[str]]] = {}
    providers: dict[str, str] = {}
    for line in asked.stdout.splitlines():
        package, depends, provides, status = line.split("\t")
        if status == "installed":
            installed[package] = list(_relations(depends))
            providers |= {name: package for names in _relations(provides) for name in names}
    return installed, providers


def _relations(field: str) -> Iterator[list[str]]:
    """The names in ``a (>= 1) | b, c:any``: a or b, and c."""
    for part in field.split(","):
        if part.strip():
            yield [re.sub(r"\(.*?\)|:\w+", "", choice).strip() for choice in part.split("|")]


def _files(packages: Iterable[str]) -> list[str]:
    listed = subprocess.run(["dpkg", "-L", *sorted(packages)], capture_output=True, text=True, check=True)
    # Packages say /bin where that is a link to /usr/bin.
    named = {os.path.normpath(path) for path in listed.stdout.splitlines() if path.startswith("/")} - {"/"}
    real = {os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)) for path in named}
    return sorted(path for path in real | {*ALWAYS} if os.path.lexists(path) and not LEFT_OUT.match(path))
