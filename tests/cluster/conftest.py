"""An S3 server and a Ray cluster of three machines, all of them processes of this one."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medclip.data.paths import parse_path
from support.ports import free_port, free_ports

AGENTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
OF_THE_COMMAND = {"README.md", "checksums.json"}  # name its folder, or hold the hash of its flags


@pytest.fixture(scope="session")
def storage(data, tmp_path_factory):
    """The URL of the prepared dataset on an S3 server; this machine has no room for copies of it."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: make cluster")
    pytest.importorskip("moto", reason="moto is not installed: make cluster")
    port, cache = free_port(), tmp_path_factory.mktemp("cache")
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
        "XDG_CACHE_HOME": str(cache),
        "MEDCLIP_DATA_CACHE_GB": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        wait_for_server(port, server)
        url = parse_path("s3://bucket/data")
        url.parent.mkdir()
        for path in data.glob("*.*"):
            (url / path.name).write_bytes(path.read_bytes())
        yield url
    server.kill()
    server.wait()


def wait_for_server(port: int, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and server.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", port), 60).close()
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the S3 server did not start")


@pytest.fixture(scope="session")
def one_core():
    """What a machine of the cluster is started with; Ray waits only 15 s for an agent whose port is not given."""

    def arguments():
        ports = dict(zip(AGENTS, free_ports(len(AGENTS)), strict=True))
        return {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 10**8, **ports}

    return arguments


@pytest.fixture(scope="session")
def cluster(storage, one_core):
    """Three machines with a core each."""
    ray_cluster = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed: make cluster")
    cluster = ray_cluster.Cluster(initialize_head=True, head_node_args=one_core())
    for _ in range(2):
        cluster.add_node(**one_core())
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="session")
def run_command():
    """Runs a command in a process of its own, on the cluster if that is given."""

    def run(*words, cluster=None):
        command = [sys.executable, "-m", "medclip.cli.main", *map(str, words)]
        environment = os.environ | ({"RAY_ADDRESS": cluster.address} if cluster else {})
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr

    return run


@pytest.fixture(scope="session")
def files_of():
    """The files below a folder but caches, what names the command or its folder, and an index's random name."""

    def read(folder: Path) -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "cache")
        files = (path for path in files if path.suffix != ".toml" and path.name not in OF_THE_COMMAND)
        contents = {str(path.relative_to(folder)): path.read_bytes() for path in files}
        for name in contents:
            if name.endswith("index.json"):
                contents[name] = repr(json.loads(contents[name])["segments"]).encode()
        return contents

    return read
