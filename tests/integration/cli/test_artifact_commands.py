"""``distci artifact``: what builds published."""

from __future__ import annotations

import json
from pathlib import Path

from program import Home


class TestArtifacts:
    def test_they_are_listed_and_fetched(self, busy: Home, tmp_path: Path) -> None:
        listed = busy.json("artifact", "list", "team/hello#1")
        got = busy.ask("artifact", "get", "team/hello#1", "*.txt", "--directory", str(tmp_path / "new" / "dist"))

        assert [(item["name"], item["size_bytes"]) for item in listed] == [("greeting.txt", 12)]
        assert got.stdout == f"{tmp_path}/new/dist/greeting.txt\n"
        assert (tmp_path / "new" / "dist" / "greeting.txt").read_text() == "hello world\n"

    def test_what_stands_in_the_way_of_one_is_named(self, busy: Home, tmp_path: Path) -> None:
        (tmp_path / "greeting.txt").mkdir()

        got = busy.ask("artifact", "get", "team/hello#1", "--directory", str(tmp_path))

        assert (got.exit_code, got.stderr) == (1, f"distci: {tmp_path}/greeting.txt: Is a directory\n")

    def test_one_that_was_not_published_is_missing(self, busy: Home) -> None:
        got = busy.ask("artifact", "get", "team/hello#1", "none.txt")

        assert got.exit_code == 5
        assert "there are: greeting.txt" in got.stderr

    def test_of_a_build_without_any_it_is_said_that_there_are_none(self, busy: Home) -> None:
        busy.ask(
            "job", "put", busy.file({"job": "team/bare", "tasks": [{"name": "a", "type": "shell", "script": ":"}]})
        )
        busy.ask("build", "trigger", "team/bare", "--wait")

        got = busy.ask("artifact", "get", "team/bare#1")

        assert (got.exit_code, got.stdout, got.stderr) == (0, "", "distci: team/bare#1 has no artifacts\n")

    def test_a_file_is_put_to_a_build_and_never_changes(self, busy: Home, tmp_path: Path) -> None:
        build = busy.ask("build", "trigger", "team/hello", "--wait", "--json").stdout
        wanted = json.loads(build.splitlines()[-1])["id"]
        path = tmp_path / "report.txt"
        path.write_text("fine")

        for _ in range(2):
            [put] = busy.json("artifact", "put", wanted, str(path), "--name", "late/report.txt")
            assert (put["name"], put["size_bytes"]) == ("late/report.txt", 4)
        assert busy.ask("artifact", "put", wanted, str(path)).stdout.startswith(
            f"{wanted} has report.txt (4 bytes, SHA-256 "
        )

        names = [item["name"] for item in busy.json("artifact", "list", wanted)]
        assert names == ["greeting.txt", "late/report.txt", "report.txt"]
        path.write_text("worse")
        refused = busy.ask("artifact", "put", wanted, str(path))
        assert refused.exit_code == 7
        assert "artifacts never change: take another name" in refused.stderr
