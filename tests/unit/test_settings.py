"""Settings: from a file, the environment and flags; later ones win, and all that is wrong is told at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

import distci.client
from distci.errors import InvalidSettings
from distci.model import BuildId
from distci.settings import Address, ReceiverSettings, Settings, address, find_file, load, with_path
from distci.settings import page as settings_page

WriteFile = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> WriteFile:
    """Makes a settings file."""

    def make(text: str) -> Path:
        file = tmp_path / "distci.toml"
        file.write_text(text)
        return file

    return make


def problems(**flags: str) -> tuple[str, ...]:
    """What is wrong with settings that come from flags."""
    with pytest.raises(InvalidSettings) as caught:
        load(None, {}, {"data": "/data"} | flags)
    return caught.value.problems


ENVIRONMENT = {"DISTCI_DATA": "/environment", "DISTCI_ACTOR": "environment"}


class TestPrecedence:
    def test_a_later_source_wins(self, write: WriteFile) -> None:
        file = write('data = "/file"\nactor = "file"\nbuild_url = "file"')

        settings = load(file, ENVIRONMENT, {"data": "/flag", "actor": None})

        assert (settings.data, settings.actor, settings.build_url) == ("/flag", "environment", "file")

    def test_each_setting_knows_where_it_came_from(self, write: WriteFile) -> None:
        file = write('data = "/file"\nactor = "file"\nbuild_url = "file"')

        settings = load(file, ENVIRONMENT, {"data": "/flag"})

        assert settings.origins == {"data": "--data", "actor": "DISTCI_ACTOR", "build_url": f"{file}: build_url"}

    def test_an_empty_variable_is_as_none(self) -> None:
        assert load(None, {"DISTCI_DATA": "", "HOME": "/home/a"}, {}).data == "/home/a/.local/share/distci"

    def test_every_setting_can_come_from_the_environment(self) -> None:
        told = {
            "coordination": "sqlite:///a",
            "store": "file:///b",
            "data": "/c",
            "session_timeout": "5s",
            "search_path": "/d",
            "isolation": "sandbox host",
            "sandbox_paths": "/w:/x",
            "container_engine": "unix:///y",
            "container_network": "z",
            "lxc_images": "/z",
            "vm_images": f"a=/b@sha256:{64 * '0'}",
            "vm_memory": "3GiB",
            "vm_cpus": "2",
            "vm_accelerator": "tcg",
            "listen": "127.0.0.1:1",
            "build_url": "e",
            "public_url": "https://r",
            "actor": "f",
            "zookeeper_user": "g",
            "zookeeper_password": "h",
            "zookeeper_ca": "i",
            "zookeeper_certificate": "j",
            "zookeeper_key": "k",
            "oidc_issuer": "https://m",
            "oidc_client_id": "n",
            "oidc_client_secret": "o",
            "oidc_scopes": "openid",
            "oidc_groups": "p",
            "oidc_roles": "q=owner",
            "url": "https://s",
            "token": "t",
            "token_file": "/u",
            "ca": "/v",
            "allow_http": "yes",
            "patience": "7s",
            "history": "/l",
            "untrusted_builds": "run",
            "delivery_rate": "5/s",
            "request_rate": "6/s",
            "artifact_size_max": "1MiB",
            "workspace_size_max": "2MiB",
            "events_kept": "9/1d",
            "held_kept": "8/2h",
            "trusted_proxies": "10.0.0.0/8 ::1",
            "secret_keys": "w",
            "secret_keys_file": "/x",
            "secret_folder": "/y",
            "cache_size_max": "2MiB",
            "diagnose_after": "9s",
            "hold_max": "2h",
        }

        settings = load(None, {f"DISTCI_{name.upper()}": value for name, value in told.items()}, {})

        assert {name: getattr(settings, name) for name in told} == told
        assert {*told, "origins", "receivers", "secret_providers"} == {item.name for item in fields(Settings)}

    def test_several_front_ends_may_be_named_each_as_safe_as_one(self) -> None:
        settings = load(None, {"DISTCI_URL": "https://a https://b:8420/ci"}, {})

        assert (settings.urls, settings.url_hosts) == (["https://a", "https://b:8420/ci"], ["a", "b"])
        for wrong, said in (
            ("https://a http://b", "between here and b"),
            ("https://a b", "must be a URL"),
            (" ", "must be"),
            ("https://a https://b/api/v1/", "leave out /api/v1"),
        ):
            with pytest.raises(InvalidSettings, match=said):
                load(None, {}, {"url": wrong})

    def test_the_back_ends_are_in_the_data_folder_unless_they_are_named(self) -> None:
        settings = load(None, {}, {"data": "/with space/and#?%41"})

        assert settings.coordination_address.path == "/with space/and#?%41/coordination.sqlite"
        assert settings.store_address.path == "/with space/and#?%41/store"


class TestDataFolder:
    @pytest.mark.parametrize(
        ("environment", "data"),
        [
            ({"HOME": "/home/a"}, "/home/a/.local/share/distci"),
            ({"HOME": "/home/a", "XDG_DATA_HOME": "/x"}, "/x/distci"),
        ],
    )
    def test_it_is_the_users_own_by_default(self, environment: dict[str, str], data: str) -> None:
        assert load(None, environment, {}).data == data

    def test_without_a_home_one_must_be_given(self) -> None:
        with pytest.raises(InvalidSettings, match="give --data DIR or set DISTCI_DATA"):
            load(None, {}, {})

    def test_it_is_absolute_whatever_was_said(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", "/home/a")

        assert Settings(data="ci").data_folder == tmp_path / "ci"
        assert Settings(data="~/ci").data_folder == Path("/home/a/ci")


class TestFile:
    def test_the_one_that_is_named_comes_first(self, tmp_path: Path) -> None:
        mine = tmp_path / "distci" / "distci.toml"
        mine.parent.mkdir()
        mine.touch()

        named = {"DISTCI_CONFIG": "/named", "XDG_CONFIG_HOME": str(tmp_path)}

        assert find_file(named) == Path("/named")
        assert find_file({"XDG_CONFIG_HOME": str(tmp_path)}) == mine

    def test_the_users_own_is_below_the_home(self, tmp_path: Path) -> None:
        mine = tmp_path / ".config" / "distci" / "distci.toml"
        mine.parent.mkdir(parents=True)
        mine.touch()

        assert find_file({"HOME": str(tmp_path)}) == mine

    def test_the_systems_counts_where_the_user_has_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        system = tmp_path / "system.toml"
        monkeypatch.setattr("distci.settings.SYSTEM_FILE", system)

        before = find_file({"HOME": str(tmp_path)})
        system.touch()

        assert before is None
        assert find_file({"HOME": str(tmp_path)}) == system

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("data = ", "not TOML"),
            ("data = 7", "data must be a text in quotes"),
            ("[data]\nfolder = 'x'", "data must be a text in quotes"),
            ("storr = 'x'", "unknown setting 'storr'; did you mean 'store'?"),
            ("origins = 'x'", "unknown setting 'origins'"),
            ("colour = 'x'", "unknown setting 'colour'"),
        ],
    )
    def test_what_is_wrong_is_told_with_the_file(self, write: WriteFile, text: str, said: str) -> None:
        file = write(text)

        with pytest.raises(InvalidSettings) as caught:
            load(file, {"HOME": "/home/a"}, {})

        [problem] = caught.value.problems
        assert problem.startswith(f"{file}: {said}")

    @pytest.mark.parametrize("name", ["none.toml", "."])
    def test_one_that_cannot_be_read_is_named(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(InvalidSettings, match=str(tmp_path / name)):
            load(tmp_path / name, {"HOME": "/home/a"}, {})

    def test_one_that_is_no_text_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "distci.toml").write_bytes(b"\xff")

        with pytest.raises(InvalidSettings, match="not TOML"):
            load(tmp_path / "distci.toml", {"HOME": "/home/a"}, {})


class TestProblems:
    def test_all_are_told_at_once_each_with_its_place(self, write: WriteFile) -> None:
        file = write('sesion_timeout = "9s"\nstore = "s3://"')

        with pytest.raises(InvalidSettings) as caught:
            load(file, {"DISTCI_SESSION_TIMEOUT": "soon"}, {"data": "", "coordination": "foo://x"})

        assert [problem.split(": ")[:-1] for problem in caught.value.problems] == [
            [str(file)],
            ["--data"],
            ["--coordination"],
            [str(file), "store"],
            ["DISTCI_SESSION_TIMEOUT"],
        ]

    def test_a_file_that_cannot_be_read_hides_no_other(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidSettings) as caught:
            load(tmp_path / "none.toml", {}, {"data": "/data", "store": "foo://x"})

        assert [problem.split(":")[0] for problem in caught.value.problems] == [str(tmp_path / "none.toml"), "--store"]

    @pytest.mark.parametrize(
        ("flag", "url", "said"),
        [
            ("coordination", "foo://x", "must begin with zookeeper:// or sqlite://"),
            ("coordination", "zk1:2181", "must begin with"),
            ("coordination", "s3://bucket", "must begin with"),
            ("coordination", "zookeeper:///distci", "'' is no host"),
            ("coordination", "zookeeper://a:2181,/distci", "'' is no host"),
            ("coordination", "zookeeper://a:port/distci", "'a:port' is no host"),
            ("coordination", "zookeeper://user@a/distci", "'user@a' is no host"),
            ("coordination", "zookeeper://[::1/distci", "is not a URL"),
            ("coordination", "zookeeper://a/distci?timeout=3", "unknown option 'timeout'"),
            ("coordination", "sqlite://relative/path", "needs an absolute path after three slashes"),
            ("coordination", "sqlite:///", "needs an absolute path"),
            ("store", "zookeeper://a", "must begin with s3:// or rados:// or file://"),
            ("store", "s3:///prefix", "names no bucket"),
            ("store", "s3://b?endpoint=http://a", "unknown option 'endpoint'; did you mean 'endpoint_url'?"),
            ("store", "s3://b?endpoint_url=a:8080", "endpoint_url must begin with http:// or https://"),
            ("store", "rados:///builds", "names no pool"),
            ("store", "rados://pool?name=distci", "name must be that of a Ceph user, as in client.distci"),
            ("store", "rados://pool?conf=ceph.conf", "conf must be an absolute path"),
            ("store", "rados://pool?config=/a", "unknown option 'config'; did you mean 'conf'?"),
            ("store", "file://relative", "needs an absolute path"),
        ],
    )
    def test_a_url_that_cannot_be_used(self, flag: str, url: str, said: str) -> None:
        [problem] = problems(**{flag: url})

        assert problem.startswith(f"--{flag}: ")
        assert said in problem

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            ({"zookeeper_user": "ci"}, "--zookeeper-user: needs zookeeper_password besides"),
            ({"zookeeper_password": "sesame"}, "--zookeeper-password: needs zookeeper_user besides"),
            ({"zookeeper_user": "c:i", "zookeeper_password": "sesame"}, "--zookeeper-user: must be up to 64 letters"),
            ({"zookeeper_user": "ci", "zookeeper_password": "sésame"}, "--zookeeper-password: must be printable ASCII"),
            ({"zookeeper_user": "ci", "zookeeper_password": "sesame open"}, "--zookeeper-password: must be printable"),
            ({"zookeeper_ca": "a", "zookeeper_key": "k"}, "--zookeeper-key: needs zookeeper_certificate besides"),
            (
                {"zookeeper_ca": "a", "zookeeper_certificate": "c"},
                "--zookeeper-certificate: needs zookeeper_key besides",
            ),
            (
                {"zookeeper_certificate": "c", "zookeeper_key": "k"},
                "--zookeeper-certificate: needs zookeeper_ca besides",
            ),
        ],
    )
    def test_credentials_that_say_nothing_by_themselves(self, flags: dict[str, str], said: str) -> None:
        [problem] = problems(**flags)

        assert problem.startswith(said)
        assert "sesame" not in problem

    def test_a_password_is_not_shown_with_the_settings(self) -> None:
        assert "sesame" not in repr(Settings(zookeeper_user="ci", zookeeper_password="sesame"))
        assert "sesame" not in repr(Settings(oidc_client_id="ci", oidc_client_secret="sesame"))

    @pytest.mark.parametrize(
        ("issuer", "is_taken"),
        [
            ("https://id.example.org/realms/ci", True),
            ("http://localhost:8080/realms/ci", True),
            ("http://127.0.0.1:8080", True),
            ("http://id.example.org", False),
            ("http://localhost.example.org", False),
            ("https://", False),
            ("https://user:sesame@id.example.org", False),
            ("https://id.example.org?x=sesame", False),
        ],
    )
    def test_a_login_provider_is_asked_by_tls(self, issuer: str, is_taken: bool) -> None:
        found = Settings(data="/d", oidc_issuer=issuer, oidc_client_id="ci", oidc_client_secret="sesame").problems()

        assert bool(found) != is_taken
        assert "sesame" not in "".join(found)

    @pytest.mark.parametrize("url", ["s3://?secret_key=sesame", "s4://b?secret_key=sesame", "s3://b?secret_kye=sesame"])
    def test_what_may_be_secret_in_a_url_is_not_repeated(self, url: str) -> None:
        assert "sesame" not in "".join(problems(store=url))


class TestAddress:
    @pytest.mark.parametrize(
        ("url", "parts"),
        [
            ("zookeeper://a:2181,b:2181/distci", Address("zookeeper", "a:2181,b:2181", "/distci", {})),
            ("zookeeper://[::1]:2181", Address("zookeeper", "[::1]:2181", "", {})),
            ("sqlite:///var/lib/a%20b", Address("sqlite", "", "/var/lib/a b", {})),
            ("file:///builds/#1", Address("file", "", "/builds/#1", {})),
            (
                "s3://bucket/prefix?endpoint_url=http://rgw:8080&region=eu",
                Address("s3", "bucket", "/prefix", {"endpoint_url": "http://rgw:8080", "region": "eu"}),
            ),
        ],
    )
    def test_a_url_is_taken_apart(self, url: str, parts: Address) -> None:
        assert address(url) == parts

    @pytest.mark.parametrize(
        "url", ["zookeeper://a:2181,b-2.example.org/distci", "zookeeper://[::1]:2181", "sqlite:///var/lib/ci.sqlite"]
    )
    def test_coordination_may_be(self, url: str) -> None:
        assert load(None, {}, {"data": "/data", "coordination": url}).coordination == url

    @pytest.mark.parametrize(
        "url",
        [
            "s3://b",
            "s3://b/p?endpoint_url=https://a&access_key=k&secret_key=s",
            "file:///x",
            "rados://p",
            "rados://p/n?conf=/c&name=client.c",
        ],
    )
    def test_the_store_may_be(self, url: str) -> None:
        assert load(None, {}, {"data": "/data", "store": url}).store == url


class TestDurations:
    @pytest.mark.parametrize(("text", "seconds"), [("10s", 10), ("500ms", 0.5), ("1.5s", 1.5), ("2m", 120)])
    def test_they_have_a_unit(self, text: str, seconds: float) -> None:
        assert load(None, {}, {"data": "/data", "session_timeout": text}).session_timeout_s == pytest.approx(seconds)

    @pytest.mark.parametrize("text", ["10", "s", "0s", "0.0ms", "-1s", "1e3s", "10 s", "10s\n", "1h1m", "٣s", "nans"])
    def test_what_is_none_is_refused(self, text: str) -> None:
        [problem] = problems(session_timeout=text)

        assert problem.startswith("--session-timeout: ")
        assert "write for example 10s" in problem


@pytest.mark.parametrize("name", ["events_kept", "held_kept"])
def test_what_does_not_say_how_much_is_kept_is_refused(name: str) -> None:
    [problem] = problems(**{name: "for ever"})

    assert problem.startswith(f"--{name.replace('_', '-')}: ")
    assert "write for example 1000/30d" in problem


class TestSizes:
    @pytest.mark.parametrize(("text", "count"), [("16GiB", 16 * 2**30), ("500MiB", 500 * 2**20), ("1KiB", 1024)])
    def test_they_have_a_unit(self, text: str, count: int) -> None:
        assert load(None, {}, {"data": "/data", "artifact_size_max": text}).artifact_bytes_max == count

    @pytest.mark.parametrize(
        "text", ["10", "GiB", "0MiB", "-1MiB", "1.5GiB", "1 GiB", "1GB", "1GiB\n", "٣GiB", "9" * 9]
    )
    def test_what_is_none_is_refused(self, text: str) -> None:
        [problem] = problems(artifact_size_max=text)

        assert problem.startswith("--artifact-size-max: ")
        assert "write for example 16GiB" in problem


@pytest.mark.parametrize("url", ["ci.example.org", "ftp://ci", "https://", "https://user:sesame@ci", "https://ci/?a=b"])
def test_where_people_find_it_is_a_web_address_without_a_password(url: str) -> None:
    [problem] = Settings(data="/d", public_url=url).problems()
    assert problem.startswith("public_url: must be a URL")
    assert "sesame" not in problem


class TestReceivers:
    def test_a_file_names_one_secret_or_several(self, write: WriteFile) -> None:
        file = write(
            '[receivers.github]\nsecrets = ["new", "old"]\ntoken = "t"\n[receivers."acme.mail"]\nsecrets = "s"'
        )

        told = load(file, {"DISTCI_DATA": "/d"}, {}).receivers

        assert told == {"github": ReceiverSettings(("new", "old"), "t"), "acme.mail": ReceiverSettings(("s",))}

    def test_variables_win_over_the_file(self, write: WriteFile) -> None:
        file = write('[receivers.github]\nsecrets = "file"\ntoken = "t"')
        variables = {
            "DISTCI_DATA": "/d",
            "DISTCI_RECEIVERS_GITHUB_SECRETS": "new old",
            "DISTCI_RECEIVERS_GITEA_API_URL": "https://git.example.org/api/v1",
            "DISTCI_RECEIVERS_ACME__MAIL_SECRETS": "s",
        }

        told = load(file, variables, {}).receivers

        assert told == {
            "github": ReceiverSettings(("new", "old"), "t"),
            "gitea": ReceiverSettings(api_url="https://git.example.org/api/v1"),
            "acme.mail": ReceiverSettings(("s",)),
        }

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("[receivers.github]\nsecret = 's3cret'", "unknown setting 'secret'; did you mean 'secrets'?"),
            ("[receivers.github]\nsecrets = 7", "receivers.github.secrets must be a text in quotes, or a list of them"),
            ("[receivers.github]\ntoken = ['s3cret', 'b']", "receivers.github.token must be one text in quotes"),
            ("[receivers.github]\nsecrets = ['s3cret x']", "must be printable ASCII without spaces"),
            ("[receivers.github]\nsecrets = ['']", "must be printable ASCII without spaces"),
            (
                "[receivers.github]\napi_url = 'file:///etc'",
                "receivers.github.api_url: must be a URL that begins with https",
            ),
            ("[receivers.github]\napi_url = 'https://ci:s3cret@h/'", "without user and password"),
            ("receivers = 's3cret'", "receivers must be tables"),
            ("[receivers.'-']\nsecrets = 's3cret'", "'-' is no name of a receiver"),
            ("untrusted_builds = 'never'", "untrusted_builds: must be hold or run"),
            ("public_url = 'ci.example.org'", "public_url: must be a URL"),
        ],
    )
    def test_what_is_wrong_is_told_without_what_is_secret(self, write: WriteFile, text: str, told: str) -> None:
        with pytest.raises(InvalidSettings) as caught:
            load(write(text), {"DISTCI_DATA": "/d"}, {})

        assert told in str(caught.value)
        assert "s3cret" not in str(caught.value)

    def test_settings_do_not_show_secrets(self) -> None:
        variables = {"DISTCI_RECEIVERS_GITHUB_SECRETS": "s3cret", "DISTCI_RECEIVERS_GITHUB_TOKEN": "t0ken"}

        settings = load(None, {"DISTCI_DATA": "/d"} | variables, {})

        assert "s3cret" not in f"{settings} {settings.receivers}"
        assert "t0ken" not in f"{settings} {settings.receivers}"


class TestBuildPage:
    @pytest.mark.parametrize(
        ("flags", "page"),
        [
            ({}, ""),
            ({"public_url": "https://ci.example.org/"}, "https://ci.example.org/jobs/team/hello/-/builds/12"),
            ({"build_url": "https://x/{build}", "public_url": "https://ci"}, "https://x/team/hello%2312"),
        ],
    )
    def test_a_build_has_a_page_where_settings_say_so(self, flags: dict[str, str], page: str) -> None:
        settings = load(None, {}, {"data": "/d"} | flags)
        assert settings_page(settings.build_pages, BuildId("team/hello", 12)) == page


@pytest.mark.parametrize("connect", [distci.client.connect, lambda url: distci.connect(store=url)])
def test_what_a_program_says_wrong_is_named_as_it_said_it(connect: Callable[[str], object]) -> None:
    with pytest.raises(InvalidSettings) as caught:
        connect("nonsense")
    [problem] = caught.value.problems
    assert problem.startswith(("connect(url=...): ", "connect(store=...): "))


@pytest.mark.parametrize(
    ("url", "end", "otherwise", "longer"),
    [
        ("zookeeper://zk1,[::1]:2182,[::2]", "/x", "/distci", "zookeeper://zk1,[::1]:2182,[::2]/distci/x"),
        ("zookeeper://zk1/team/", "/x", "/distci", "zookeeper://zk1/team/x"),
        ("s3://bucket/deep?endpoint_url=http://rgw", "/x", "", "s3://bucket/deep/x?endpoint_url=http://rgw"),
        ("sqlite:///data/coordination.sqlite", "-x", "/distci", "sqlite:///data/coordination.sqlite-x"),
    ],
)
def test_a_place_below_or_beside_another_has_its_hosts_and_options(
    url: str, end: str, otherwise: str, longer: str
) -> None:
    assert with_path(url, end, otherwise) == longer
