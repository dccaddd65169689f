"""``distci job``: jobs and their versions."""

from __future__ import annotations

import json

import pytest
from integration.cli.homes import BROKEN, HELLO, WRONG
from jsonschema import Draft202012Validator
from program import Home


class TestJobs:
    def test_versions_are_kept_compared_and_brought_back(self, home: Home) -> None:
        other = HELLO | {"description": "Says hello."}

        puts = [home.ask("job", "put", home.file(job), "--reason", "why not") for job in (HELLO, other, other)]
        diff = home.ask("job", "diff", "team/hello")
        back = home.ask("job", "rollback", "team/hello", "1", "--reason", "it was better")
        history = home.json("job", "history", "team/hello")

        assert [put.stdout for put in puts] == [f"team/hello version {version}\n" for version in (1, 2, 2)]
        assert '+  "description": "Says hello."' in diff.stdout
        assert back.stdout == "team/hello version 3, as version 1 was\n"
        assert [(change["version"], change["reason"]) for change in history] == [
            (3, "it was better"),
            (2, "why not"),
            (1, "why not"),
        ]

    def test_what_get_prints_can_be_put(self, home: Home) -> None:
        home.ask("job", "put", home.file(HELLO))

        printed = home.ask("job", "get", "team/hello").stdout
        again = home.ask("job", "put", "-", input=printed)

        assert json.loads(printed) == HELLO
        assert again.stdout == "team/hello version 1\n"

    def test_a_put_that_expected_another_version_is_a_conflict(self, home: Home) -> None:
        home.ask("job", "put", home.file(HELLO), "--expect", "0")

        second = home.ask("job", "put", home.file(HELLO | {"description": "x"}), "--expect", "0")

        assert second.exit_code == 7
        assert "version 1" in second.stderr

    def test_a_deleted_job_leaves_the_list_and_keeps_its_history(self, home: Home) -> None:
        home.ask("job", "put", home.file(HELLO))
        home.ask("job", "put", home.file(BROKEN))

        home.ask("job", "delete", "team/hello", "--reason", "moved")

        assert home.ask("job", "list").stdout == "team/broken\n"
        assert home.ask("job", "get", "team/hello").exit_code == 5
        assert "(deleted) moved" in home.ask("job", "history", "team/hello").stdout

    def test_what_is_missing_of_a_job_is_looked_for_in_its_history(self, home: Home) -> None:
        home.ask("job", "put", home.file(HELLO))
        home.ask("job", "delete", "team/hello")

        deleted = home.ask("job", "get", "team/hello").stderr
        never = home.ask("job", "get", "team/hello", "--version", "9").stderr

        hint = "`distci job history team/hello` shows all versions"
        assert deleted.startswith(f"distci: job 'team/hello' has been deleted; {hint}")
        assert never.startswith(f"distci: there is no version 9 of job 'team/hello'; {hint}")

    def test_the_list_may_be_of_one_project(self, home: Home) -> None:
        for job in (HELLO, HELLO | {"job": "other/hello"}):
            home.ask("job", "put", home.file(job))

        assert home.ask("job", "list", "other/").stdout == "other/hello\n"

    def test_a_single_version_has_nothing_to_be_compared_with(self, home: Home) -> None:
        home.ask("job", "put", home.file(HELLO))

        diff = home.ask("job", "diff", "team/hello")

        assert (diff.exit_code, diff.stdout) == (0, "")
        assert "nothing before it" in diff.stderr

    def test_lint_needs_no_system(self, home: Home) -> None:
        good, bad = (home.ask("job", "lint", home.file(job)) for job in (HELLO, WRONG))

        assert (good.exit_code, good.stdout) == (0, "team/hello is a valid job\n")
        assert bad.exit_code == 2
        assert "did you mean 'script'?" in bad.stderr
        assert not (home.folder / ".local").exists()

    @pytest.mark.parametrize("command", ["lint", "put"])
    def test_what_is_wrong_is_told_with_line_and_column_in_their_order(self, home: Home, command: str) -> None:
        file = home.folder / "job.yaml"
        file.write_text("job: team/hello\ntasks:\n  - name: a\n    type: shell\n    scrpt: x\n    needs: [b]\n")

        told = home.ask("job", command, str(file))

        assert told.exit_code == 2
        assert [line.strip() for line in told.stderr.splitlines()[1:]] == [
            "- line 3, column 5: tasks[0].script: is missing",
            "- line 5, column 5: tasks[0].scrpt: unknown key; did you mean 'script'?",
            "- line 6, column 13: tasks[0].needs[0]: there is no task 'b'; known are: a",
        ]

    def test_a_job_of_yaml_is_saved_as_the_same_of_json(self, home: Home) -> None:
        file = home.folder / "job.yaml"
        file.write_text("job: team/yaml\ntasks:\n  - {name: a, type: shell, script: 'true'}\n")

        assert home.ask("job", "put", str(file)).stdout == "team/yaml version 1\n"
        saved = json.loads(home.ask("job", "get", "team/yaml").stdout)
        assert saved["tasks"] == [{"name": "a", "type": "shell", "script": "true"}]

    def test_the_schema_for_editors_is_the_one_that_jobs_are_held_to(self, home: Home) -> None:
        schema = json.loads(home.ask("job", "schema").stdout)

        assert [*Draft202012Validator(schema).iter_errors(HELLO)] == []
        assert [*Draft202012Validator(schema).iter_errors({**HELLO, "tsaks": []})]

    @pytest.mark.parametrize(
        "arguments",
        [
            ["get", "team/none"],
            ["get", "team/hello", "--version", "9"],
            ["history", "team/none"],
            ["diff", "team/none"],
            ["rollback", "team/hello", "9"],
            ["delete", "team/none"],
        ],
    )
    def test_what_is_not_there_is_missing(self, busy: Home, arguments: list[str]) -> None:
        asked = busy.ask("job", *arguments)

        assert asked.exit_code == 5
        assert arguments[1] in asked.stderr
