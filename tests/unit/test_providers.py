"""Values of secrets that others keep: each for the projects that it is given to, and an outage is never "not there"."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import distci
from distci.errors import Invalid, InvalidSettings, Unavailable
from distci.providers import load
from distci.providers.environment import Environment
from distci.providers.files import Files
from distci.providers.port import Provider, without_line_end
from distci.providers.vault import Vault
from distci.settings import Settings

VALUES = {("team/web", "TOKEN"): "of the web", ("", "TOKEN"): "of all", ("team/web", "KEY"): "line\nline\n"}


class Keeper:
    """Answers as a Vault does that has a mount ``secret`` of each version: ``data/distci`` of the second, ``old`` of the first."""

    def __init__(self) -> None:
        self.status = 200
        self.body: bytes | None = None
        self.asked: list[str] = []
        keeper = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                keeper.asked.append(self.path)
                status, body = keeper.answer(self.path, self.headers.get("X-Vault-Token", ""))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:1/")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """To nobody."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, path: str, token: str) -> tuple[int, bytes]:
        if token != "hvs.good":
            return 403, b'{"errors": ["permission denied"]}'
        if self.status != 200 or self.body is not None:
            return self.status, self.body or b"{}"
        is_new = path.startswith("/v1/secret/data/distci/")
        project, _, name = path.removeprefix("/v1/secret/data/distci" if is_new else "/v1/secret/old").rpartition("/")
        value = VALUES.get((project.strip("/"), name))
        if value is None:
            return 404, b'{"errors": []}'
        data: dict[str, Any] = {"value": value}
        return 200, json.dumps({"data": {"data": data, "metadata": {"version": 1}} if is_new else data}).encode()


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    keeper = Keeper()
    yield keeper
    keeper.server.shutdown()
    keeper.server.server_close()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("hvs.good\n")
    return tmp_path / "token"


def vault(keeper: Keeper, token: Path, path: str = "secret/data/distci") -> Vault:
    return Vault({"url": keeper.url, "path": path, "token_file": str(token)}, {})


def files(folder: Path) -> Files:
    for (project, name), value in VALUES.items():
        (folder / project).mkdir(parents=True, exist_ok=True)
        (folder / project / name).write_text(value if value.endswith("\n") else f"{value}\n")
    return Files({"folder": str(folder)}, {})


@pytest.fixture(params=["vault", "vault of version 1", "files", "environment"])
def provider(request: pytest.FixtureRequest, keeper: Keeper, token: Path, tmp_path: Path) -> Provider:
    """One that has VALUES, of each kind."""
    made: Mapping[str, Callable[[], Provider]] = {
        "vault": lambda: vault(keeper, token),
        "vault of version 1": lambda: vault(keeper, token, "secret/old/"),
        "files": lambda: files(tmp_path / "secrets"),
        "environment": lambda: Environment(
            {"team/web": "TOKEN KEY"}, {"TOKEN": "of the web", "KEY": "line\nline\n", "HOME": "/root"}
        ),
    }
    return made[request.param]()


def test_each_gives_a_secret_to_the_project_that_has_it_and_to_no_other(provider: Provider) -> None:
    assert provider.get("team/web", "TOKEN") == "of the web"
    assert provider.get("team/web", "KEY") == "line\nline\n"
    for project, name in (("team", "TOKEN"), ("team/web/site", "TOKEN"), ("team/web", "NONE"), ("team/web", "HOME")):
        assert provider.get(project, name) is None


def test_one_of_the_system_is_asked_for_after_those_of_the_projects(
    keeper: Keeper, token: Path, tmp_path: Path
) -> None:
    options = {"vault": {"url": keeper.url, "path": "secret/data/distci", "token_file": str(token)}}
    with distci.connect(settings=Settings(data=str(tmp_path / "data"), secret_providers=options)) as ci:
        assert ci.secrets.values("team/web/site", ["TOKEN", "NONE"]) == {"TOKEN": "of the web"}
        assert ci.secrets.values("other", ["TOKEN"]) == {"TOKEN": "of all"}
    assert keeper.asked[:2] == [f"/v1/secret/data/distci/{project}/TOKEN" for project in ("team/web/site", "team/web")]


@pytest.mark.parametrize("status", [302, 400, 403, 429, 500, 503])
def test_what_a_vault_does_not_tell_is_not_taken_for_nothing(keeper: Keeper, token: Path, status: int) -> None:
    keeper.status = status
    with pytest.raises(Unavailable, match=str(status)):
        vault(keeper, token).get("team/web", "TOKEN")


@pytest.mark.parametrize("body", [b"<html>hunter2", b'"hunter2', b"\xff"])
def test_what_is_no_answer_of_a_vault_is_an_outage_and_not_quoted(keeper: Keeper, token: Path, body: bytes) -> None:
    keeper.body = body
    with pytest.raises(Unavailable) as raised:
        vault(keeper, token).get("team/web", "TOKEN")
    assert "hunter2" not in str(raised.value)


def test_a_vault_that_has_something_else_there_is_told(keeper: Keeper, token: Path) -> None:
    keeper.body = b'{"data": {"data": {"other": "hunter2"}, "metadata": {}}}'
    with pytest.raises(Invalid, match="no text in its field value") as raised:
        vault(keeper, token).get("team/web", "TOKEN")
    assert "hunter2" not in str(raised.value)


def test_a_token_that_somebody_renews_is_read_anew(keeper: Keeper, token: Path) -> None:
    token.write_text("hvs.expired")
    asked = vault(keeper, token)
    with pytest.raises(Unavailable, match="403"):
        asked.get("team/web", "TOKEN")
    token.write_text("hvs.good")
    assert asked.get("team/web", "TOKEN") == "of the web"


def test_one_that_is_away_is_an_outage(keeper: Keeper, token: Path, tmp_path: Path) -> None:
    asked = vault(keeper, token)
    keeper.server.server_close()
    with pytest.raises(Unavailable):
        asked.get("team/web", "TOKEN")
    with pytest.raises(Unavailable, match="no folder"):
        Files({"folder": str(tmp_path / "none")}, {}).get("team", "TOKEN")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"vault": {"url": "http://vault.example.org", "path": "a", "token_file": "/t"}}, "must begin with https://"),
        ({"vault": {"url": "https://vault.example.org", "path": "a"}}, "lacks token_file"),
        ({"vault": {"url": "https://v", "path": "a", "token_file": "/t", "token": "hunter2"}}, "takes no token"),
        ({"files": {"folder": "secrets"}}, "an absolute path"),
        ({"environment": {"team": "NONE"}}, "no variable NONE, which team"),
        ({"environment": {"../team": "HOME"}}, "environment"),
        ({"keepass": {}}, "none of that name is installed; there are: environment, files, vault"),
    ],
)
def test_what_cannot_be_used_is_told_at_once_and_not_quoted(
    options: Mapping[str, Mapping[str, str]], says: str
) -> None:
    with pytest.raises(InvalidSettings, match=says) as refused:
        load(options, {"HOME": "/root"})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("read", "value"),
    [("a\n", "a"), ("a\r\n", "a"), ("a", "a"), ("a\n\n", "a\n\n"), ("a\nb\n", "a\nb\n"), ("a\nb", "a\nb")],
)
def test_a_single_line_loses_its_end_and_a_key_keeps_it(read: str, value: str) -> None:
    assert without_line_end(read) == value
