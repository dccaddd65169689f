"""Secrets from files, as container engines and Kubernetes mount them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from distci.errors import Invalid, Unavailable
from distci.providers.port import Options, without_line_end


class Files:
    """The secret ``NAME`` of the project ``team/web`` is the file ``FOLDER/team/web/NAME``; of the whole system, ``FOLDER/NAME``.

    The one option is ``folder``, an absolute path.
    """

    def __init__(self, options: Options, environment: Mapping[str, str]) -> None:
        if [*options] != ["folder"] or not options["folder"].startswith("/"):
            raise Invalid("takes one option, folder, an absolute path")
        self._folder = Path(options["folder"])

    def get(self, project: str, name: str) -> str | None:
        file = self._folder / project / name
        try:
            return without_line_end(file.read_text())
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            # Where the folder itself is not there, it is not yet mounted.
            if not self._folder.is_dir():
                raise Unavailable(f"secrets: there is no folder {self._folder}") from None
            return None
        except OSError as error:
            raise Unavailable(f"secrets: {file}: {error.strerror}") from error
        except UnicodeDecodeError:
            # The cause would quote it.
            raise Invalid(f"secrets: {file} is no text") from None
