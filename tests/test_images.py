"""The Dockerfiles are carried out in a clean Debian, and what they make runs as our files have it run."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from medclip.search.curate import build_index
from support.clean_root import POD_ADDRESS, Limits, build, start

ROOT = Path(__file__).parents[1]
KEY = "0123456789abcdef0123456789abcdef"
QUESTION = json.dumps({"queries": [{"texts": ["CT of the chest"]}], "k": 2})

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, ("debootstrap", "unshare", "ip"))),
        reason="making a clean Debian needs root, debootstrap, util-linux and iproute2",
    ),
]


@pytest.fixture
def volume(run, data, tmp_path):
    """An index and, beside it, its model: what /data holds."""
    folder = tmp_path / "volume"
    shutil.copytree(run, folder / "model")
    build_index(folder / "model", data, folder / "index")
    return folder


def search(container, host="127.0.0.1", **headers):
    status, text = container.ask(f"http://{host}:8000/search", QUESTION, content_type="application/json", **headers)
    return status, json.loads(text)


def test_the_image_serves(volume, tmp_path):
    context = tmp_path / "context"
    context.mkdir()
    for name in re.findall(r"^!(.*)", (ROOT / ".dockerignore").read_text(), re.M):
        subprocess.run(["cp", "-a", ROOT / name, context], check=True)
    image = build(ROOT / "Dockerfile", context, tmp_path)
    docker_run(image, volume, tmp_path / "docker.log")
    pod(image, volume, tmp_path)
    compose(image, volume, tmp_path)


def docker_run(image, volume, log_file):
    """As the Dockerfile's own comment runs it."""
    with start(image, log_file, Limits(mounts={"/data": volume})) as container:
        container.wait("http://127.0.0.1:8000/ready")
        health = container.run(image.health)
        assert health.returncode == 0, health.stderr
        status, answer = search(container)
        assert status == 200 and len(answer["results"][0]["hits"]) == 2, answer
        assert container.run(["id", "-u"]).stdout == "10001\n"
        installed = container.run(["medclip", "--version"])
        assert installed.returncode == 0 and not installed.stderr, installed
        for absent in ("pip", "hatchling", "pytest", "optax"):
            assert container.run(["python", "-c", f"import {absent}"]).returncode == 1, absent
        assert container.stop() == 0, container.log()
    with start(image, log_file) as container:  # nothing is mounted: a sentence, not a traceback
        assert container.process.wait(120) == 2
        assert "/data/index" in container.log() and "Traceback" not in container.log()


def pod(image, volume, folder):
    """As Kubernetes runs it: no privileges, a read-only root, keys of the Secret's mode, probes from outside."""
    documents = yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text())
    spec = next(document for document in documents if document["kind"] == "Deployment")["spec"]["template"]["spec"]
    (serve,) = spec["containers"]
    context, privileges = spec["securityContext"], serve["securityContext"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    keys = folder / "keys"
    keys.mkdir()
    (keys / "api-keys").write_text(f"{KEY}\n")
    (keys / "api-keys").chmod(volumes["keys"]["secret"]["defaultMode"])
    os.chown(keys / "api-keys", 0, context["fsGroup"])
    sources = {"data": volume, "keys": keys}
    mounts = {mount["mountPath"]: mount for mount in serve["volumeMounts"]}
    limits = Limits(
        user=str(context["runAsUser"]),
        groups=(str(context["fsGroup"]),),
        mounts={path: sources[mount["name"]] for path, mount in mounts.items() if mount.get("readOnly")},
        memory={
            path: f"mode=1777,size={volumes[mount['name']]['emptyDir']['sizeLimit'].rstrip('i')}"
            for path, mount in mounts.items()
            if not mount.get("readOnly")
        },
        read_only=privileges["readOnlyRootFilesystem"],
        no_privileges=privileges["capabilities"]["drop"] == ["ALL"] and not privileges["allowPrivilegeEscalation"],
    )
    (port,) = serve["ports"]
    with start(image, folder / "pod.log", limits, serve["args"]) as container:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):  # asked by address, without a key
            get = serve[probe]["httpGet"]
            assert get["port"] == port["name"]
            container.wait(f"http://{POD_ADDRESS}:{port['containerPort']}{get['path']}")
        assert search(container, POD_ADDRESS)[0] == 401
        status, answer = search(container, POD_ADDRESS, x_api_key=KEY)
        assert status == 200 and len(answer["results"][0]["hits"]) == 2, answer
        written = container.run(
            ["sh", "-c", "for f in / /data /keys /home/medclip /tmp; do touch $f/x && echo $f; done"]
        )
        assert written.stdout == "/tmp\n"
        gibibytes = int(re.fullmatch(r"(\d+)Gi", serve["resources"]["limits"]["memory"])[1])
        assert container.peak_bytes() < gibibytes * 2**30
        assert container.stop() == 0, container.log()


def compose(image, volume, folder):
    """As compose runs it: its notes' command moves the index to a Milvus server of that name, then it is served."""
    text = (ROOT / "compose.yaml").read_text()
    service = yaml.safe_load(text)["services"]["serve"]
    assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    variables = {"MEDCLIP_API_KEY": KEY, "MILVUS_URI": service["environment"]["MILVUS_URI"]}
    assert variables.keys() == service["environment"].keys()
    names = folder / "hosts"
    names.write_text("127.0.0.1 localhost milvus\n")
    limits = Limits(
        mounts={"/data": volume, "/etc/hosts": names},
        memory={path: "mode=1777,noexec,nosuid,nodev" for path in service["tmpfs"]},
        read_only=service["read_only"],
        no_privileges=True,
    )
    image = image.with_variables(variables)
    migrate = re.search(r":/data\" serve (medclip .*)", text)[1].split()
    owner = replace(limits, user="0", mounts={"/etc/hosts": names}, writable={"/data": volume})
    with start(image, folder / "network.log", command=["sleep", "infinity"]) as network, milvus(network, folder):
        with start(image, folder / "migrate.log", owner, migrate, beside=network) as container:
            assert container.process.wait(300) == 0, container.log()
        with start(image, folder / "compose.log", limits, beside=network) as container:
            container.wait("http://127.0.0.1:8000/ready")
            status, answer = search(container, authorization=f"Bearer {KEY}")
            assert status == 200 and len(answer["results"][0]["hits"]) == 2, answer
            assert container.stop() == 0, container.log()


@contextmanager
def milvus(network, folder):
    """A server that stands for Milvus, in the network of a container."""
    address = ["--host", "127.0.0.1", "--port", "19530", "--data-dir", folder / "milvus"]
    server = subprocess.Popen([*network.network, sys.executable, "-m", "milvus_lite", "server", *address])
    try:
        connect = "import socket; socket.create_connection(('127.0.0.1', 19530), 1)"
        for _ in range(120):
            if network.run(["python", "-c", connect]).returncode == 0:
                break
            time.sleep(0.5)
        yield
    finally:
        server.terminate()
        server.wait(60)


def test_the_space_shows(volume, tmp_path):
    context = tmp_path / "context"
    shutil.copytree(volume, context)
    for name in ("deploy/space/Dockerfile", "deploy/space/README.md", "requirements-image.lock"):
        shutil.copy(ROOT / name, context)
    wheel = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", context]
    subprocess.run(wheel, cwd=ROOT, check=True, capture_output=True)
    image = build(context / "Dockerfile", context, tmp_path)
    with start(image, tmp_path / "space.log") as container:
        port = re.search(r"^app_port: (\d+)$", (context / "README.md").read_text(), re.M)[1]
        container.wait(f"http://{POD_ADDRESS}:{port}/_stcore/health")
        assert container.run(["id", "-u"]).stdout == "1000\n"
        status, page = container.ask(f"http://{POD_ADDRESS}:{port}/")
        assert status == 200 and "<title>" in page
        container.stop()
        assert "Traceback" not in container.log(), container.log()
