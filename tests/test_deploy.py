"""The files under deploy/, the Dockerfile and compose.yaml say what the service is; none of them can be run here."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from medclip.serve import gate

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load(read("compose.yaml"))["services"]


@pytest.fixture(scope="module")
def kubernetes():
    return {document["kind"]: document for document in yaml.safe_load_all(read("deploy/kubernetes.yaml"))}


@pytest.fixture
def flags(medclip):
    """The flags of a command."""
    return lambda command: set(re.findall(r"--[a-z][a-z-]+", medclip(command, "--help")[1]))


def test_every_image_is_pinned(compose):
    images = [service["image"] for service in compose.values() if "build" not in service]
    images += re.findall(r"^FROM (\S+)", read("Dockerfile") + read("deploy/space/Dockerfile"), re.M)
    assert len(images) == 6
    for image in images:
        assert re.search(r":.*\d", image) and "latest" not in image, image


def test_only_the_service_is_reachable_and_only_from_its_machine(compose):
    assert [name for name, service in compose.items() if "ports" in service] == ["serve"]
    assert compose["serve"]["ports"] == ["127.0.0.1:8000:8000"]
    assert not re.search(r"(PASSWORD|KEY)\w*: (?!\$\{\w+:\?|medclip$)", read("compose.yaml"), re.M)


def test_a_service_waits_for_services_with_health_checks(compose):
    for service in compose.values():
        for name in service.get("depends_on", {}):
            assert "healthcheck" in compose[name]


def test_volumes_are_declared(compose):
    named = {v.split(":")[0] for service in compose.values() for v in service.get("volumes", []) if re.match(r"\w", v)}
    assert named == yaml.safe_load(read("compose.yaml"))["volumes"].keys()


def test_the_pod_has_no_privileges_and_its_parts_fit(kubernetes, flags):
    pod = kubernetes["Deployment"]["spec"]["template"]["spec"]
    (serve,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] and serve["securityContext"]["readOnlyRootFilesystem"]
    assert serve["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert serve["livenessProbe"]["httpGet"]["path"] in gate.PUBLIC_PATHS
    assert serve["readinessProbe"]["httpGet"]["path"] == "/ready" in gate.PUBLIC_PATHS
    assert pod["terminationGracePeriodSeconds"] > gate.REQUEST_TIMEOUT_S
    assert {mount["name"] for mount in serve["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    labels = kubernetes["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert kubernetes["Service"]["spec"]["selector"] == labels
    assert kubernetes["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    claim = next(v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v)
    assert kubernetes["PersistentVolumeClaim"]["metadata"]["name"] == claim
    assert serve["args"][:2] == ["medclip", "serve"] and {a for a in serve["args"] if a[:2] == "--"} <= flags("serve")


def test_the_unit_runs_the_command(flags):
    unit = read("deploy/medclip-serve.service")
    command = shlex.split(re.search(r"^ExecStart=(.*)", unit, re.M)[1])
    assert command[1] == "serve" and {word for word in command if word[:2] == "--"} <= flags("serve")
    assert int(re.search(r"TimeoutStopSec=(\d+)", unit)[1]) > gate.REQUEST_TIMEOUT_S
    assert "NoNewPrivileges=yes" in unit and "DynamicUser=yes" in unit


def test_proxies_take_what_the_service_takes():
    megabytes = gate.MAX_UPLOAD_BYTES // 2**20
    assert f"client_max_body_size {megabytes}m;" in read("deploy/nginx.conf")
    assert f"max_size {megabytes}MB" in read("deploy/Caddyfile")
    nginx = read("deploy/nginx.conf")
    assert nginx.count("{") == nginx.count("}") and "proxy_set_header Upgrade $http_upgrade;" in nginx
    assert "$request_uri" not in nginx.split("log_format")[1].split(";")[0]


def test_the_image_holds_code_alone_and_is_not_root(flags):
    ignored = read(".dockerignore").splitlines()
    assert "*" in ignored and {line[1:] for line in ignored if line.startswith("!")} == {
        "pyproject.toml", "README.md", "requirements.lock", "src"}  # fmt: skip
    dockerfile = read("Dockerfile")
    assert re.search(r"^USER 10001$", dockerfile, re.M) and "HEALTHCHECK" in dockerfile
    extras = set(re.search(r'"\.\[([a-z,]+)\]"', dockerfile)[1].split(","))
    assert extras <= tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"].keys()
    command = re.search(r"^CMD (\[.*\])", dockerfile, re.M)[1]
    assert set(re.findall(r"--[a-z-]+", command)) <= flags("serve")


def test_every_file_is_named_in_the_notes():
    notes = read("docs/deploy.md")
    for path in DEPLOY.iterdir():
        assert f"deploy/{path.name}" in notes
