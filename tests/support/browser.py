"""The app as its command serves it, and the browser that visits it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from support.ports import free_port

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def serve_app(arguments: Sequence[str | Path], log: Path, folder: Path) -> Iterator[str]:
    """The address of `medclip app`, running in a folder that it may not write to; `log` gets what it says."""
    port = free_port()
    folder.chmod(0o555)
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "medclip.cli.main", "app", *map(str, arguments), "--port", str(port)]
        process = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True, cwd=folder)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 600
        while True:
            assert process.poll() is None, log.read_text()
            try:
                with urllib.request.urlopen(f"{url}/_stcore/health", timeout=60):
                    break
            except OSError:
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.25)
        yield url
    finally:
        process.terminate()
        process.wait(120)
        with pytest.raises(OSError):  # the page does not outlive the command
            urllib.request.urlopen(f"{url}/_stcore/health", timeout=60)
        assert list(folder.iterdir()) == []


@contextmanager
def open_chromium() -> Iterator[Browser]:
    """Debian's browser; the test is skipped where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine: the browser test needs one on the PATH")
    expect.set_options(timeout=120_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()
