"""The files under deploy/, the Dockerfile and compose.yaml say what the service is; tests/test_images.py runs some."""

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
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


def test_every_image_is_pinned_by_digest(compose):
    images = [service["image"] for service in compose.values() if "build" not in service]
    images += re.findall(r"^FROM (\S+)", read("Dockerfile") + read("deploy/space/Dockerfile"), re.M)
    assert len(images) == 4
    for image in images:
        assert re.fullmatch(r"[\w/]+:v?\d[\w.-]*@sha256:[0-9a-f]{64}", image), image


def without_digests(text):
    return re.sub(r"@sha256:[0-9a-f]{64}", "", text)


def test_digests_are_pinned_by_one_command_where_docker_is(tmp_path):
    for name in ("Makefile", "Dockerfile", "compose.yaml", "deploy/space/Dockerfile"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(read(name))
    docker = tmp_path / "bin" / "docker"  # gives a digest that ends with the length of the image's name
    docker.parent.mkdir()
    docker.write_text('#!/bin/sh\nprintf "sha256:%064d" "${#6}"')
    docker.chmod(0o755)
    for _ in range(2):  # the second time changes nothing
        environment = os.environ | {"PATH": f"{docker.parent}:{os.environ['PATH']}"}
        subprocess.run(["make", "-s", "pin"], cwd=tmp_path, env=environment, check=True)
        for name in ("Dockerfile", "deploy/space/Dockerfile", "compose.yaml"):
            pinned = (tmp_path / name).read_text()
            images = re.findall(r"(?:FROM|image:) (\S+:\S+)", pinned)
            assert images and all(image.endswith(f"@sha256:{len(image.split('@')[0]):064}") for image in images), images
            assert without_digests(pinned) == without_digests(read(name))
    assert not list(tmp_path.rglob("*.bak"))


def test_the_space_installs_the_wheel_that_is_built():
    project = tomllib.loads(read("pyproject.toml"))["project"]["name"]
    (pattern,) = re.findall(r"/([^/\s]+\.whl)", read("deploy/space/Dockerfile"))
    assert fnmatch(f"{project.replace('-', '_')}-0.2.0-py3-none-any.whl", pattern)


def hashes_by_pin(name):
    """The hashes of each pin of a lock file, whatever its marker."""
    pins = re.findall(r"^([\w.-]+==[^\s;]+)[^\n]* \\\n((?:    --hash=sha256:\w+(?: \\)?\n)+)", read(name), re.M)
    return {pin: set(re.findall(r"sha256:\w+", hashes)) for pin, hashes in pins}


def test_images_install_from_the_hashed_lock_alone():
    for name in ("Dockerfile", "deploy/space/Dockerfile"):
        installs = re.findall(r"pip install [^\n]*", read(name))
        assert len(installs) == 2, installs
        for command in installs:
            assert "--require-hashes" in command or "--no-deps --no-index" in command, command
    image, everything = hashes_by_pin("requirements-image.lock"), hashes_by_pin("requirements.lock")
    assert len(image) > 100 and all(everything[pin] == hashes for pin, hashes in image.items())
    lines = [line for line in read("requirements-image.lock").splitlines() if re.match(r"\w", line)]
    assert len(lines) == len(image)  # none is without a hash
    assert "pytest" not in read("requirements-image.lock")


def test_what_is_installed_without_hashes_is_named():
    """Of all that make installs; SECURITY.md lists the same."""
    installs, target = set(), ""
    for line in read("Makefile").replace("\\\n", " ").splitlines():
        target = line.partition(":")[0] if re.match(r"[^\s#].*:(?!=)", line) else target
        is_install = line.startswith("\t") and re.search(r"pip install|\$\(CHECK\)|uv tool run", line)
        if is_install and not re.search(r"--require-hashes -r |--no-deps --no-build-isolation -e \.", line):
            installs.add(
                "parity" if "findstring parity" in line else target.removeprefix(".venv-").removesuffix("/ready")
            )
    assert installs == {"parity", "bench", "ranges", "manifests"}
    assert all(f"`make {name}`" in read("SECURITY.md") for name in (*installs, "audit"))


def test_every_lock_is_audited_or_a_part_of_one_that_is():
    (recipe,) = re.findall(r"^audit:.*\n((?:\t.*\n)+)", read("Makefile"), re.M)
    audited = {name for name in re.findall(r"[\w-]+\.lock", recipe)}
    assert all(f"--require-hashes -r {name}" in recipe for name in audited)
    assert {path.name for path in ROOT.glob("*.lock")} - audited == {"requirements-image.lock"}


def test_only_the_service_is_reachable_and_only_from_its_machine(compose):
    assert [name for name, service in compose.items() if "ports" in service] == ["serve"]
    assert compose["serve"]["ports"] == ["127.0.0.1:8000:8000"]
    assert not re.search(r"(PASSWORD|KEY)\w*: (?!\$\{\w+:\?|medclip$)", read("compose.yaml"), re.M)


def test_milvus_is_one_container(compose):
    """Its published settings for that: etcd within it, configured by what is mounted, and files on a volume."""
    assert compose.keys() == {"serve", "milvus"}
    variables, (config,) = compose["milvus"]["environment"], compose["milvus"]["configs"]
    assert variables["ETCD_USE_EMBED"] == "true" and variables["ETCD_CONFIG_PATH"] == config["target"]
    assert variables["COMMON_STORAGETYPE"] == "local" and variables["DEPLOY_MODE"] == "STANDALONE"
    (volume,) = compose["milvus"]["volumes"]
    assert variables["ETCD_DATA_DIR"].startswith(volume.split(":")[1])
    etcd = yaml.safe_load(yaml.safe_load(read("compose.yaml"))["configs"][config["source"]]["content"])
    assert etcd["listen-client-urls"].endswith(":2379") and etcd["quota-backend-bytes"] == 4 * 2**30


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


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is absent: it comes with systemd")
def test_the_unit_is_understood_by_systemd(tmp_path):
    command = tmp_path / "opt/medclip/bin/medclip"
    unit = tmp_path / "etc/systemd/system/medclip-serve.service"
    for path, text in ((command, "#!/bin/sh\n"), (unit, read("deploy/medclip-serve.service"))):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    command.chmod(0o755)
    verify = ["systemd-analyze", "verify", f"--root={tmp_path}", "--man=no", "--recursive-errors=no", unit.name]
    verified = subprocess.run(verify, capture_output=True, text=True)
    assert verified.returncode == 0 and not verified.stderr, verified.stderr


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
        "pyproject.toml", "README.md", "LICENSE", "requirements-image.lock", "src"}  # fmt: skip
    dockerfile = read("Dockerfile")
    assert re.search(r"^USER 10001$", dockerfile, re.M) and "HEALTHCHECK" in dockerfile
    extras = set(re.findall(r"--extra (\w+)", read("requirements-image.lock").splitlines()[1]))
    assert (
        {"app", "serve"} <= extras <= tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"].keys()
    )
    command = re.search(r"^CMD (\[.*\])", dockerfile, re.M)[1]
    assert set(re.findall(r"--[a-z-]+", command)) <= flags("serve")


def test_every_file_is_named_in_the_notes():
    notes = read("docs/deploy.md")
    for path in DEPLOY.iterdir():
        assert f"deploy/{path.name}" in notes


def test_every_threat_names_a_test_that_exists():
    text = read("SECURITY.md")
    for threat in ("image", "dataset", "model folder", "index", "query"):
        assert re.search(rf"^\| \*\*a hostile {threat}\*\* .*\(tests/\S+\.py\)", text, re.M), threat
    assert re.search(r"^\| \*\*a curious neighbor\*\* .*\(tests/\S+\.py\)", text, re.M)
    for path in re.findall(r"\]\(([^)]+)\)", text):
        assert (ROOT / path).is_file(), path
