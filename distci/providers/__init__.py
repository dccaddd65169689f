"""Where values of secrets may come from besides our own store; see :mod:`distci.providers.port`.

They are found by the entry-point group ``distci.secrets``: a third party adds one by installing a package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points

from distci.errors import Invalid, InvalidSettings
from distci.providers.port import Options, Provider

GROUP = "distci.secrets"


def load(settings: Mapping[str, Options], environment: Mapping[str, str]) -> Sequence[Provider]:
    """Those that the settings name, in their order. InvalidSettings names all that cannot be used."""
    if not settings:
        return ()
    found = {point.name: point for point in entry_points(group=GROUP)}
    providers: list[Provider] = []
    problems = []
    for name, options in settings.items():
        if name not in found:
            problems.append(f"secret_providers.{name}: none of that name is installed; there are: {', '.join(found)}")
            continue
        try:
            providers.append(found[name].load()(options, environment))
        except Invalid as error:
            problems.append(f"secret_providers.{name}: {error}")
    if problems:
        raise InvalidSettings("these providers of secrets cannot be used:", problems)
    return providers
