"""``distci job import``, and the jobs that come of it, which run; ``distci job lint`` of several files and of what is surely a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from integration.git_remotes import Remote
from program import Home

from distci.documents.written import read_written

SAMPLES = Path(__file__).parents[2] / "data" / "imports"

RUNNABLE = {
    "runnable.gitlab-ci.yml": ("gitlab", ["hello from compile\n", "after, hello\n", "checked one\n", "checked two\n"]),
    "workflows/runnable.yml": ("github", ["hello world at 1\n", "what it says\n", "python went\n"]),
    "woodpecker-runnable.yaml": ("woodpecker", ["hello hello 1\n"]),
    "distci-2013-runnable.json": ("distci-2013", ["what it says\n"]),
}


class TestImport:
    @pytest.mark.parametrize("name", RUNNABLE)
    def test_what_is_imported_runs_and_passes(self, home: Home, name: str) -> None:
        remote = Remote(home.folder / "remote")
        remote.commit(README="what it says\n")
        kind, output = RUNNABLE[name]
        file = home.file((SAMPLES / name).read_text().replace("REPOSITORY", str(remote.path)), Path(name).name)

        made = home.ask(
            "job",
            "import",
            file,
            "--from",
            kind,
            "--job",
            "team/moved",
            "--repository",
            str(remote.path),
            "--no-images",
        )
        assert made.exit_code == 0, made.stderr
        linted = home.ask("job", "lint", "-", input=made.stdout)
        ran = home.pipe("run", "-", input=made.stdout)

        assert linted.stdout == "team/moved is a valid job\n"
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "team/moved#1 passed" in ran.stdout
        assert [line for line in output if line not in ran.stdout] == []

    def test_the_job_is_printed_and_what_was_dropped_is_told(self, home: Home) -> None:
        file = home.file("a:\n  script: [make]\n  release: /x/\n", ".gitlab-ci.yml")

        yaml, as_json = (home.ask("job", "import", file, "--as", form) for form in ("yaml", "json"))
        [record] = home.json("job", "import", file)

        assert yaml.exit_code == 0
        assert (
            f"distci: {file}: line 3, column 3: a.release: /x/ (dropped: nothing here stands for it)\n" in yaml.stderr
        )
        assert read_written(yaml.stdout, "printed").document == json.loads(as_json.stdout) == record["job"]
        assert record["from"] == "gitlab"
        assert {"file": file, "line": 3, "column": 3, "place": "a.release"}.items() <= record["notes"][-1].items()
        assert not (home.folder / ".local").exists()

    def test_a_file_that_is_included_is_read_beside_it_and_nowhere_else(self, home: Home) -> None:
        (home.folder / "repository" / "ci").mkdir(parents=True)
        home.file("other: {script: y}\n", "outside.yml")
        home.file("other: {script: y}\n", "repository/ci/inside.yml")
        (home.folder / "repository" / "link.yml").symlink_to(home.folder / "outside.yml")
        (home.folder / "repository" / "folder.yml").mkdir()
        for path, is_read in [
            ("/ci/inside.yml", True),
            ("../outside.yml", False),
            ("ci/../../outside.yml", False),
            (str(home.folder / "outside.yml"), False),
            ("link.yml", False),
            ("folder.yml", False),
            ("none.yml", False),
        ]:
            file = home.file(f"include: {{local: {path}}}\na: {{script: x}}\n", "repository/.gitlab-ci.yml")
            made = home.ask("job", "import", file)
            assert made.exit_code == 0
            assert ("name: other" in made.stdout) == is_read, path
            assert ("there is no such file beside this one" in made.stderr) != is_read, path

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("a: &a [*a]", "line 1, column 4: nested deeper than 64 levels, or within itself"),
            ("a: 1", "nobody can tell which system this is of; say it with --from"),
            ("[1", "line 1, column"),
        ],
    )
    def test_what_cannot_be_imported_is_refused(self, home: Home, text: str, said: str) -> None:
        asked = home.ask("job", "import", home.file(text, "a.yml"))

        assert (asked.exit_code, asked.stdout) == (2, "")
        assert said in asked.stderr

    def test_what_is_no_valid_job_yet_is_printed_to_go_on_with(self, home: Home) -> None:
        steps = {f"step {n} with a name that is quite long": {"image": "a", "commands": ["x"]} for n in range(250)}

        asked = home.ask("job", "import", home.file({"steps": steps}), "--from", "woodpecker")

        assert asked.exit_code == 2
        assert "name: step 249 with a name" in asked.stdout
        assert "what has come of it is no valid job yet:" in asked.stderr


GOOD = "job: team/good\ntasks:\n  - {name: a, type: shell, script: 'true'}\n"
WRONG = "job: team/wrong\ntasks:\n  - {name: a, type: shell, scrpt: 'true'}\n"
ODD = "job: team/odd\ntasks:\n  - name: a\n    type: shell\n    script: 'true'\n    if: {events: [pull-request]}\n"


class TestLint:
    def test_several_files_are_checked_and_each_is_told_of(self, home: Home) -> None:
        good, wrong, broken = home.file(GOOD, "good.yaml"), home.file(WRONG, "wrong.yaml"), home.file("a: [", "b.yaml")

        asked = home.ask("job", "lint", good, wrong, broken, str(home.folder / "none.yaml"))

        assert (asked.exit_code, asked.stdout) == (2, "team/good is a valid job\n")
        assert asked.stderr.splitlines()[0] == "distci: 3 of 4 jobs are wrong:"
        assert f"{wrong}: line 3, column 28: tasks[0].scrpt: unknown key; did you mean 'script'?" in asked.stderr
        assert f"{broken}: line 1, column 5: " in asked.stderr
        assert f"{home.folder / 'none.yaml'}: No such file" in asked.stderr

    def test_what_is_allowed_and_surely_a_mistake_is_warned_of_with_its_place(self, home: Home) -> None:
        odd = home.file(ODD, "odd.yaml")

        asked = home.ask("job", "lint", odd)
        strict = home.ask("job", "lint", odd, "--strict")
        [record] = home.json("job", "lint", odd)

        warning = "tasks[0].if.events[0]: there is no event 'pull-request'; did you mean 'pull_request'?"
        assert (asked.exit_code, asked.stdout) == (0, "team/odd is a valid job\n")
        assert asked.stderr == f"distci: warning: {odd}: line 6, column 19: {warning}\n"
        assert strict.exit_code == 2
        assert f"line 6, column 19: {warning}" in strict.stderr
        assert record == {"file": odd, "job": "team/odd", "warnings": [warning]}
