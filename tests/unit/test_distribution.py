"""What people install: a wheel with every file of the library, the workers and the schemas, whichever folder it is in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[2]
INSTALLED_AS = {"distci/": "distci/", "schemas/": "distci/schemas/", "workers/": ""}


def files() -> list[str]:
    """All that are, or may be, under version control."""
    listed = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    told = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return [name for name in told.split("\0") if name and (ROOT / name).exists()]


def test_a_wheel_holds_every_file_that_the_checkout_has(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())

    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), "."]
    subprocess.run(wheel, cwd=source, check=True)

    wanted = {
        name.replace(folder, place, 1)
        for name in files()
        for folder, place in INSTALLED_AS.items()
        if name.startswith(folder)
    }
    [built] = tmp_path.glob("*.whl")
    held = {name for name in ZipFile(built).namelist() if ".dist-info/" not in name}
    assert held == wanted
