"""The API for tests: in this process, or as the command that somebody runs."""

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

from medclip.serve.api import create
from medclip.serve.service import Service, Settings


@contextmanager
def opened(index: Path, keys: list[bytes] | None = None, **settings) -> Iterator[TestClient]:
    """A client of the API over an index."""
    with TestClient(create(Settings(index, **settings), keys or [])) as client:
        yield client


def service_of(client: TestClient) -> Service:
    """What answers behind a client."""
    return client.app._app.state.service


def problem(answer) -> str:
    """The sentence of an answer that is none; nothing else is in it."""
    assert answer.headers["content-type"] == "application/json", answer.text
    assert answer.json().keys() == {"error"}
    return answer.json()["error"]


@dataclass
class Running:
    """`medclip serve`, as somebody runs it."""

    url: str
    process: subprocess.Popen
    log: Path

    def said(self) -> str:
        """All that it wrote."""
        return self.log.read_text()

    def connect(self, timeout: float = 20) -> socket.socket:
        """A bare connection to it."""
        host, port = self.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), timeout)


@contextmanager
def running(index: Path, log: Path, *flags: str, **environment: str) -> Iterator[Running]:
    """The command on a free port of this machine, ready to answer; terminated at the end."""
    command = [sys.executable, "-m", "medclip.cli.main", "serve", "--index", str(index), "--port", "0", *flags]
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=os.environ | environment)
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            if found := re.search(r"http://\S+:\d+", log.read_text()):
                try:
                    with urllib.request.urlopen(f"{found[0]}/ready", timeout=60):
                        break
                except OSError:
                    pass
            time.sleep(0.1)
        else:
            raise AssertionError(log.read_text())
        yield Running(found[0], process, log)
    finally:
        process.terminate()
        process.wait(60)
