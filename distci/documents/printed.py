"""Jobs printed for people to go on with, as YAML that is read back as the very same document."""

from __future__ import annotations

import re
from typing import Any

from distci.model import Json


def as_yaml(document: Json) -> str:
    """A document in YAML: keys in their order, texts of several lines as blocks, in quotes what is no text without them."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)

    def text(dumper: Any, value: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=_style(value))

    Dumper.add_representer(str, text)
    printed: str = yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
    return printed


def _style(text: str) -> str | None:
    """Blocks for several lines; quotes that escape for what cannot be seen, and for what is a number to some readers though not to all."""
    if not re.sub(r"[\n\t]", "", text).isprintable() or re.match(r"[0-9+.~=-]|[yYnN]$", text):
        return '"'
    return "|" if "\n" in text else None
