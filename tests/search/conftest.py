"""A Milvus server for the tests of the stores."""

import os
import socket
import subprocess
import sys
import time

import pytest

from support.ports import free_port


class MilvusServer:
    """A milvus-lite server in a process of its own, on a free port of this machine."""

    def __init__(self, folder):
        self.port, self.folder = free_port(), folder
        self.uri = f"milvus://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        address = ("--host", "127.0.0.1", "--port", str(self.port), "--data-dir", str(self.folder))
        log_file = self.folder.parent / "server.log"
        with log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "milvus_lite", "server", *address],
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"},  # with more threads its graphs differ from call to call
            )
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                return socket.create_connection(("127.0.0.1", self.port), 60).close()
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"milvus-lite did not start: {log_file.read_text()}")

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture(scope="session")
def start_server():
    """Starts a server of its own whose data lie in a folder."""
    return MilvusServer


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server for all tests that do not stop it."""
    server = MilvusServer(tmp_path_factory.mktemp("milvus") / "data")
    yield server
    server.stop()
