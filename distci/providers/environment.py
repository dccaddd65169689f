"""Secrets from variables of the process that opens them."""

from __future__ import annotations

from collections.abc import Mapping

from distci.errors import Invalid
from distci.model import check_project
from distci.projects import called
from distci.providers.port import Options


class Environment:
    """Variables, each given to the projects that name it.

    The options are projects, each with the names of its variables: ``"team/web" = "DEPLOY_TOKEN NPM_TOKEN"``; ``""`` is the whole system. A secret has its variable's name.
    """

    def __init__(self, options: Options, environment: Mapping[str, str]) -> None:
        self._values: dict[tuple[str, str], str] = {}
        for project, names in options.items():
            check_project(project)
            for name in names.split():
                if name not in environment:
                    raise Invalid(f"there is no variable {name}, which {called(project)} shall have")
                self._values[project, name] = environment[name]

    def get(self, project: str, name: str) -> str | None:
        return self._values.get((project, name))
