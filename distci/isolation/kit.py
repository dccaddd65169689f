"""A Python that runs in whatever image, for the supervisor in there, and for what has it run.

An image may have no Python, another libc, or nothing at all. So a folder is made of this machine's own: the program, the libraries that it
needs with the loader that finds them there, and the few modules that the supervisor imports, compiled. Who mounts it needs nothing else.
"""

from __future__ import annotations

import hashlib
import os
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType

from distci.errors import Unavailable
from distci.isolation import supervisor
from distci.isolation.processes import is_there, own_name
from distci.isolation.supervised import INTERPRETER_OPTIONS, interpreter

LOADER, LIBRARIES, PROGRAM = "loader", "libraries", "bin/python"

HALF = "making-"
"""How the names of kits begin that are not whole yet."""

SUPERVISOR = (supervisor,)
"""What runs in containers."""

LOOK = """
import os, sys
exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"), {"__name__": "program", "__file__": sys.argv[1]})
os.get_exec_path({})
print(os.path.dirname(os.__file__), sys.platlibdir, *sys.version_info[:2], sep="\\n")
for line in open("/proc/self/maps"):
    path = line.rstrip("\\n").partition("/")[2]
    if os.path.basename(path).startswith("ld-"):
        print("/" + path)
        break
for module in [*sys.modules.values()]:
    if getattr(module, "__file__", None):
        print(module.__file__)
"""
"""Tells of an interpreter that has loaded a program: the folder of its modules, how that is called, its version, its loader, and the modules."""


def make_kit(folder: Path, modules: Sequence[ModuleType] = SUPERVISOR) -> Path:
    """The kit below a folder, made if it is not there yet. Unavailable when it cannot be made.

    The first of ``modules`` is what runs there, the others what it imports of ours.
    """
    program = interpreter()
    texts = "".join(source(module).read_text() for module in modules)
    made_of = f"{sys.version}\n{program}\n{os.stat(program).st_mtime_ns}\n{texts}"
    kit = folder / f"kit-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"
    if not kit.is_dir():
        try:
            folder.mkdir(0o700, parents=True, exist_ok=True)
            half = Path(mkdtemp(prefix=f"{HALF}{own_name()}-", dir=folder))
            _fill(half, program, modules)
            # Whoever runs in a container reads it.
            half.chmod(0o755)
            half.rename(kit)
        except (OSError, subprocess.SubprocessError) as error:
            if not kit.is_dir():
                raise Unavailable(f"no interpreter can be made ready for containers in {folder}: {error}") from error
    return kit


def sweep(folder: Path) -> int:
    """Remove kits that processes were making which are gone; how many these were."""
    removed = 0
    for half in folder.glob(f"{HALF}*"):
        if not is_there(half.name.removeprefix(HALF)):
            shutil.rmtree(half, ignore_errors=True)
            removed += 1
    return removed


def argv(place: str, module: ModuleType = supervisor) -> Sequence[str]:
    """What runs a module where the kit is mounted."""
    start = [f"{place}/{LOADER}", "--library-path", f"{place}/{LIBRARIES}", f"{place}/{PROGRAM}"]
    return [*start, *INTERPRETER_OPTIONS, f"{place}/{_path(module)}"]


def _path(module: ModuleType) -> str:
    """Where it is in a kit. Called as it is everywhere: by its path, those who look for commands without a supervisor know one."""
    return "/".join(module.__name__.split(".")) + ".py"


def source(module: ModuleType) -> Path:
    """The file of a module."""
    assert module.__file__
    return Path(module.__file__)


def _fill(kit: Path, program: str, ours: Sequence[ModuleType]) -> None:
    looked = _lines(program, *INTERPRETER_OPTIONS, "-c", LOOK, os.fspath(source(ours[0])))
    folder, name, major, minor, loader, *modules = looked
    _copy(loader, kit / LOADER)
    _copy(program, kit / PROGRAM)
    for module in ours:
        _copy(os.fspath(source(module)), kit / _path(module))
    inside = kit / name / f"python{major}.{minor}"
    # Without these two Python does not know where it is.
    (inside / "lib-dynload").mkdir(parents=True)
    loaded = [path for path in modules if path.startswith(f"{folder}/")]
    for path in dict.fromkeys([f"{folder}/os.py", *loaded]):
        copy = inside / path.removeprefix(f"{folder}/")
        _copy(path, copy)
        if copy.suffix == ".py":
            py_compile.compile(str(copy), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    for path in (program, *(path for path in loaded if not path.endswith(".py"))):
        for line in _lines(loader, "--list", path):
            # A line reads: libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f0000000000)
            library, _, found = line.strip().rpartition(" (")[0].partition(" => ")
            if found and "/" not in library:
                _copy(found, kit / LIBRARIES / library)


def _lines(*command: str) -> Sequence[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def _copy(path: str, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, copy)
