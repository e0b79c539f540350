"""The API for tests: in this process, or as the command in another."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi.testclient import TestClient

from medclip.serve.api import create_app
from medclip.serve.service import Service, Settings


@contextmanager
def open_client(index: Path, keys: list[bytes] | None = None, **settings) -> Iterator[TestClient]:
    """A client of the API over an index."""
    with TestClient(create_app(Settings(index, **settings), keys or [])) as client:
        yield client


def service_of(client: TestClient) -> Service:
    """The service behind a client."""
    return client.app.app.state.service


def error_sentence(response) -> str:
    """The sentence of an error response, which holds nothing else."""
    assert response.headers["content-type"] == "application/json", response.text
    assert response.json().keys() == {"error"}
    return response.json()["error"]


@dataclass
class ServerProcess:
    """`medclip serve` in a process of its own."""

    url: str
    process: subprocess.Popen
    log_file: Path

    def log(self) -> str:
        """All that it printed."""
        return self.log_file.read_text()

    def connect(self, timeout: float = 60, source: tuple[str, int] | None = None) -> socket.socket:
        """A raw connection to it, of another address of this machine where `source` is one."""
        host, port = self.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), timeout, source)


@contextmanager
def start_server(index: Path, log_file: Path, *flags: str, **environment: str) -> Iterator[ServerProcess]:
    """The command on a free port of this machine, ready to answer; terminated at the end."""
    command = [sys.executable, "-m", "medclip.cli.main", "serve", "--index", str(index), "--port", "0", *flags]
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | environment)
    try:
        deadline = time.monotonic() + 600
        while True:
            assert process.poll() is None, log_file.read_text()
            if url := re.search(r"http://\S+:\d+", log_file.read_text()):
                try:
                    with urllib.request.urlopen(f"{url[0]}/ready", timeout=60):
                        break
                except OSError:
                    pass
            assert time.monotonic() < deadline, log_file.read_text()
            time.sleep(0.1)
        yield ServerProcess(url[0], process, log_file)
    finally:
        process.terminate()
        process.wait(120)
