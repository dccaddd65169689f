"""What the name of an image says. Pure: no engine is asked."""

from __future__ import annotations

import re
from collections.abc import Sequence

MADE_HERE, BY_ID = "localhost/", "sha256:"
"""How the names of images begin that no registry has."""

USUAL_HOST = "docker.io"


def host_of(image: str) -> str:
    """The registry that has it, with its port where one is named."""
    first, slash, _ = image.partition("/")
    return first if slash and (first == "localhost" or re.search("[.:]", first)) else USUAL_HOST


def has_tag(image: str) -> bool:
    """Whether it says which of its repository's images it means, be it by digest."""
    return bool(re.search("(:[^:/]*|@.*)$", image))


def repository_of(image: str) -> str:
    """The name without tag and digest."""
    return re.sub("(:[^:/@]*)?(@.*)?$", "", image)


def repositories(image: str) -> Sequence[str]:
    """The repository of an image as engines may call it."""
    repository = repository_of(image)
    return [repository, f"docker.io/{repository}", f"docker.io/library/{repository}", f"localhost/{repository}"]
