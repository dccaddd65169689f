"""What ``deploy/`` has for other places: held to the schemas of those who read it, and to what this version really has."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import requests
import yaml

from distci.access import Action
from distci.app import connect
from distci.cli import cli
from distci.cli.command import Command
from distci.frontend.health import ANSWER_MAX_S
from distci.frontend.serving import DRAIN_S, LEAVE_S, FrontEnd
from distci.process import installed_kinds
from distci.protocol import Member, Offer
from distci.settings import PREFIX, Settings, load

DEPLOY = Path(__file__).parents[2] / "deploy"
PROGRAM = Path(sys.executable).with_name("distci")
MANIFESTS = sorted(path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.name != "kustomization.yaml")
EXPOSURE_MAX = 30
"""Of 100, by the count of ``systemd-analyze security``."""


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def objects(kind: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind in all manifests, by name."""
    found = [each for path in MANIFESTS for each in documents(path) if each["kind"] == kind]
    return {each["metadata"]["name"]: each for each in found}


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the commands that the program would have run: everything is parsed, nothing is done."""
    paths: list[str] = []
    monkeypatch.setattr(Command, "invoke", lambda self, context: paths.append(context.command_path))
    return paths


def parse(*words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*words], prog_name="distci")
    assert ended.value.code == 0, words


def check_settings(environment: Mapping[str, str]) -> Settings:
    """Settings as a process with that environment would have them; every name must be one of theirs."""
    ours = {f"{PREFIX}{name.upper()}" for name in Settings.__slots__}
    assert {name for name in environment if name.startswith(PREFIX)} <= ours
    return load(None, {"HOME": "/home/ci", **environment}, {})


# The page about it


NGINX = (DEPLOY / "nginx.conf").read_text()
HOST, PORT = "front-end", 8420
"""Where nginx looks for front ends."""
CERTIFICATES = "/etc/nginx/distci"
SERVER_NAME = "ci.example.org"


def test_nginx_looks_where_the_files_for_containers_have_front_ends() -> None:
    assert f"server {HOST}:{PORT} " in NGINX
    assert f"server_name {SERVER_NAME};" in NGINX
    assert f"ssl_certificate {CERTIFICATES}/" in NGINX


PAGE = (DEPLOY.parent / "docs" / "deploying.rst").read_text()
LINES = [line.strip() for block in re.findall(r"code-block:: sh\n((?:\n| +.+\n)+)", PAGE) for line in block.split("\n")]


def test_the_settings_that_are_shown_can_be_used(tmp_path: Path) -> None:
    everybody, front_ends = re.findall(r"code-block:: toml\n((?:\n| +.+\n)+)", PAGE)
    file = tmp_path / "distci.toml"
    file.write_text(everybody + front_ends)

    settings = load(file, {"HOME": "/home/ci"}, {})
    assert (settings.zookeeper_user, settings.public_url) == ("ci", f"https://{SERVER_NAME}")


@pytest.mark.parametrize("line", [line for line in LINES if "deploy/" in line])
def test_a_file_that_a_shown_command_takes_is_there(line: str) -> None:
    for name in re.findall(r"deploy/[\w./@-]+", line):
        assert (DEPLOY.parent / name).exists() or name == "deploy/.env"


@pytest.mark.parametrize("line", [line for line in LINES if re.match(r"(podman|docker) .*(run|exec) ", line)])
def test_what_a_shown_container_runs_is_a_command(line: str, parsed: list[str]) -> None:
    parse(*shlex.split(re.sub(r".* distci (?=worker|check|login|token)", "", line)))
    assert parsed


# systemd


UNITS = {"distci-worker@.service": "distci-worker@shell.service", "distci-frontend.service": "distci-frontend.service"}
"""The units, and as what each is started."""


def installed(name: str, folder: Path) -> Path:
    """A unit with the program where the tests have it."""
    text = (DEPLOY / "systemd" / name).read_text()
    path = folder / UNITS[name]
    path.write_text(text.replace("/opt/distci/bin/distci", str(PROGRAM)))
    return path


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit of shell workers."""
    return installed("distci-worker@.service", tmp_path)


def told_by(unit: Path) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE))


def environment(name: str) -> dict[str, str]:
    """What a file of settings says, of which no secret may be filled in."""
    lines = (DEPLOY / "systemd" / name).read_text().splitlines()
    told = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert not [key for key, value in told.items() if re.search("PASSWORD|KEY_ID|ACCESS_KEY", key) and value]
    return told


def analyze(*arguments: str) -> str:
    ran = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_unit_without_a_warning(name: str, tmp_path: Path) -> None:
    assert analyze("verify", "--man=no", str(installed(name, tmp_path))) == ""


@pytest.mark.parametrize("name", UNITS)
def test_the_unit_gives_away_little(name: str, tmp_path: Path) -> None:
    unit = installed(name, tmp_path)
    analyze("security", "--offline=yes", f"--threshold={EXPOSURE_MAX}", "--no-pager", str(unit))


def test_the_unit_drains_and_its_command_is_one(unit: Path, parsed: list[str]) -> None:
    told = told_by(unit)

    assert (told["KillMode"], told["TimeoutStopSec"], told["OOMPolicy"]) == ("mixed", "2h", "continue")
    for kind in installed_kinds():
        # As systemd fills these in.
        filled = (
            told["ExecStart"].replace("%i", kind).replace("%I", kind.replace("-", "/")).replace("$OPTIONS", "--slots 2")
        )
        parse(*shlex.split(filled)[1:])
        assert kind in shlex.split(filled)
    assert {*parsed} == {"distci worker run"}


def test_the_environment_of_the_unit_is_made_of_settings() -> None:
    settings = check_settings(environment("worker.env") | {"DISTCI_ZOOKEEPER_PASSWORD": "drawn"})

    assert settings.coordination_address.scheme == "zookeeper"


def test_a_front_end_as_a_unit_is_one_that_nginx_and_people_find(tmp_path: Path, parsed: list[str]) -> None:
    told = told_by(installed("distci-frontend.service", tmp_path))
    settings = check_settings(environment("frontend.env") | {"DISTCI_ZOOKEEPER_PASSWORD": "drawn"})

    parse(*shlex.split(told["ExecStart"])[1:])
    assert parsed == ["distci frontend"]
    assert float(told["TimeoutStopSec"].removesuffix("s")) > DRAIN_S + LEAVE_S
    assert told["EnvironmentFile"] == "/etc/distci/frontend.env"
    assert settings.public_url == f"https://{SERVER_NAME}"
    assert settings.listen.endswith(f":{PORT}")


# Compose


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    [document] = documents(DEPLOY / "compose.yaml")
    return document


def test_compose_is_by_its_schema() -> None:
    check = [str(PROGRAM.with_name("check-jsonschema")), "--builtin-schema", "vendor.compose-spec"]
    ran = subprocess.run([*check, str(DEPLOY / "compose.yaml")], capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_compose_has_workers_of_every_kind_that_may_do_little(compose: dict[str, Any], parsed: list[str]) -> None:
    kinds = installed_kinds()
    for kind in kinds:
        service = compose["services"][kind]
        parse(*service["command"])
        assert service["command"][:3] == ["worker", "run", kind]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["stop_grace_period"] == "2h"
    assert parsed == ["distci worker run"] * len(kinds)


def test_compose_has_front_ends_that_nginx_finds(compose: dict[str, Any], parsed: list[str]) -> None:
    front_end, nginx = compose["services"][HOST], compose["services"]["nginx"]

    parse(*front_end["command"])
    assert parsed == ["distci frontend"]
    assert front_end["command"][-1].endswith(f":{PORT}")
    assert f":{PORT}/livez" in front_end["healthcheck"]["test"][-1]
    assert nginx["networks"] == ["front"]
    assert "front" in front_end["networks"]
    assert not [name for name, service in compose["services"].items() if "ports" in service and name != "nginx"]
    mounted = dict(volume.rsplit(":", 2)[:2] for volume in nginx["volumes"])
    assert (DEPLOY / "compose.yaml").with_name("nginx.conf").samefile(DEPLOY / "nginx.conf")
    assert mounted["./nginx.conf"].startswith("/etc/nginx/conf.d/")
    assert CERTIFICATES in mounted.values()
    assert front_end["environment"]["DISTCI_PUBLIC_URL"].startswith("${PUBLIC_URL:?")


def test_compose_names_no_secret_and_knows_its_settings(compose: dict[str, Any]) -> None:
    told = compose["services"]["shell"]["environment"]
    secrets = [name for name in told if re.search("PASSWORD|SECRET", name)]
    drawn = {name for name, value in told.items() if ":?" in value}
    asked = re.findall(r"\$\{(\w+):\?", (DEPLOY / "compose.yaml").read_text())
    given = re.findall(r"^(\w+)=$", (DEPLOY / "compose.env").read_text(), re.MULTILINE)

    settings = check_settings(told | dict.fromkeys(drawn, "drawn") | {"DISTCI_ZOOKEEPER_USER": "ci"})

    assert {*secrets} == drawn
    assert {*asked} == {*given}
    assert len(settings.coordination_address.host.split(",")) == 3


def test_compose_uses_networks_and_volumes_that_it_makes(compose: dict[str, Any]) -> None:
    services = compose["services"].values()
    mounted = {volume.partition(":")[0] for service in services for volume in service.get("volumes", ())}
    volumes = {volume for volume in mounted if volume.isalnum() or "-" in volume}

    assert volumes == {*compose["volumes"]}
    assert {network for service in services for network in service["networks"]} == {*compose["networks"]}
    assert {name for service in services for name in service.get("depends_on", ())} <= {*compose["services"]}


# Kubernetes


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_by_the_schemas_of_kubernetes(path: Path) -> None:
    for document in documents(path):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_kustomization_has_every_manifest_but_the_example() -> None:
    [document] = documents(DEPLOY / "kubernetes" / "kustomization.yaml")

    assert {*document["resources"]} == {path.name for path in MANIFESTS} - {"secrets.example.yaml"}


def differing(deployment: Mapping[str, Any], kind: str) -> Iterator[tuple[str, Any]]:
    """What of a deployment is its kind's own."""

    def walk(place: str, value: Any) -> Iterator[tuple[str, Any]]:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for name, inner in items:
            yield from walk(f"{place}.{name}", inner)
        if not isinstance(value, dict | list):
            yield place, value.replace(kind, "KIND") if isinstance(value, str) else value

    pod = ".spec.template.spec"
    own = (
        ".spec.replicas",
        ".spec.template.metadata.labels.distci.network",
        f"{pod}.containers.0.args",
        f"{pod}.containers.0.envFrom.2",
        f"{pod}.containers.0.resources",
        f"{pod}.terminationGracePeriodSeconds",
    )
    return ((place, value) for place, value in walk("", deployment) if not place.startswith(own))


def test_deployments_of_all_kinds_are_one_but_for_size_and_reach(parsed: list[str]) -> None:
    deployments = objects("Deployment")
    kinds = installed_kinds()

    assert {*deployments} == {f"distci-{kind}" for kind in kinds} | {"distci-front-end", "distci-nginx"}
    for kind in kinds:
        deployment = deployments[f"distci-{kind}"]
        assert [*differing(deployment, kind)] == [*differing(deployments["distci-control"], "control")]
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        parse(*(word.replace("$(POD)", "pod") for word in container["args"]))
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            parse(*container[probe]["exec"]["command"][1:])
    assert parsed.count("distci worker run") == len(kinds)
    assert parsed.count("distci worker check") == 3 * len(kinds)


@pytest.mark.parametrize("deployment", ["distci-shell", "distci-front-end"])
def test_pods_find_their_settings_and_secrets(deployment: str) -> None:
    pod = objects("Deployment")[deployment]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    settings, secrets = objects("ConfigMap"), objects("Secret")
    told = settings["distci"]["data"] | secrets["distci"]["stringData"]
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    [files] = [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume]

    loaded = check_settings(told)

    assert [*container["envFrom"]] == [{"configMapRef": {"name": "distci"}}, {"secretRef": {"name": "distci"}}]
    for file in (loaded.zookeeper_ca, loaded.zookeeper_certificate, loaded.zookeeper_key):
        assert str(Path(file).parent) in mounted
        assert Path(file).name in secrets[files]["stringData"]


def test_nginx_and_kubernetes_find_front_ends_that_are_well(parsed: list[str]) -> None:
    pod = objects("Deployment")["distci-front-end"]["spec"]["template"]
    [container] = pod["spec"]["containers"]
    service = objects("Service")[HOST]["spec"]
    [port] = service["ports"]
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}

    parse(*container["args"])
    assert parsed == ["distci frontend"]
    assert container["args"][-1].endswith(f":{PORT}")
    assert (port["port"], port["targetPort"]) == (PORT, container["ports"][0]["name"])
    assert container["ports"][0]["containerPort"] == PORT
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    # A look at tree and store may take its time, each.
    assert container["readinessProbe"]["timeoutSeconds"] > 2 * ANSWER_MAX_S
    assert f"server_name {urlsplit(objects('ConfigMap')['distci']['data']['DISTCI_PUBLIC_URL']).hostname};" in NGINX


def test_nginx_is_let_through_to_front_ends_and_finds_its_files() -> None:
    nginx = objects("Deployment")["distci-nginx"]["spec"]["template"]
    mounted = {mount["mountPath"]: mount["name"] for mount in nginx["spec"]["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in nginx["spec"]["volumes"]}
    policies = {name: policy["spec"] for name, policy in objects("NetworkPolicy").items()}
    front_end = objects("Deployment")["distci-front-end"]["spec"]["template"]["metadata"]["labels"]

    files = objects("Secret")[volumes[mounted[CERTIFICATES]]["secret"]["secretName"]]["stringData"]
    assert {*files} == {Path(file).name for file in re.findall(rf"{CERTIFICATES}/\S+(?=;)", NGINX)}
    let_in, let_out = policies["distci-front-end"]["ingress"][0], policies["distci-nginx"]["egress"][1]
    assert policies["distci-front-end"]["podSelector"]["matchLabels"].items() <= front_end.items()
    assert let_in["from"][0]["podSelector"]["matchLabels"] == nginx["metadata"]["labels"]
    assert let_out["to"][0]["podSelector"]["matchLabels"].items() <= front_end.items()
    assert [way["ports"] for way in (let_in, let_out)] == [[{"port": PORT, "protocol": "TCP"}]] * 2


def test_the_rule_of_the_metrics_adapter_makes_what_scales_of_what_a_front_end_tells(local_figures: str) -> None:
    [text] = [block for block in re.findall(r"code-block:: yaml\n((?:\n| +.+\n)+)", PAGE) if "metricsQuery" in block]
    [rule] = yaml.safe_load(text)["rules"]["external"]
    asked = {
        metric["external"]["metric"]["name"]
        for scaler in objects("HorizontalPodAutoscaler").values()
        for metric in scaler["spec"]["metrics"]
    }

    assert asked == {rule["name"]["as"]}
    told = {*re.findall(r"^# TYPE (\w+)", local_figures, re.MULTILINE)}
    wanted = {*re.findall(r"\bdistci_\w+", f"{rule['seriesQuery']} {rule['metricsQuery']}")}
    assert wanted <= told
    for name in wanted:
        assert f'{name}{{kind="shell"}} 0.0' in local_figures


@pytest.fixture
def local_figures(tmp_path: Path) -> str:
    """What a front end tells of a system in which nothing waits."""
    with connect(tmp_path / "data") as system:
        token = system.access.create_token("prometheus", [Action.READ]).text
        with Member(system.tickets, Offer(["shell"]), "worker"), FrontEnd(system, "127.0.0.1:0") as front_end:
            told = {"Authorization": f"Bearer {token}"}
            answer = requests.get(f"{front_end.address}/metrics", headers=told, timeout=30)
    assert answer.status_code == 200
    return answer.text


def test_what_scales_and_what_is_kept_exists() -> None:
    deployments = objects("Deployment")

    for name, scaler in objects("HorizontalPodAutoscaler").items():
        spec = scaler["spec"]
        [metric] = [metric["external"]["metric"] for metric in spec["metrics"]]
        assert spec["scaleTargetRef"]["name"] == name
        assert name == f"distci-{metric['selector']['matchLabels']['kind']}"
        assert spec["minReplicas"] == deployments[name]["spec"]["replicas"]
    for budget in objects("PodDisruptionBudget").values():
        kept = budget["spec"]["selector"]["matchLabels"]
        assert kept in [deployment["spec"]["selector"]["matchLabels"] for deployment in deployments.values()]
