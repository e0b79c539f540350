"""Starts the Streamlit app, bound to this machine."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path

from medclip.errors import UserError, WorkError
from medclip.search.index import Index

APP = Path(__file__).with_name("app.py")


def launch(index: Path, port: int) -> None:
    """Check the index and its model, then serve until interrupted."""
    if importlib.util.find_spec("streamlit") is None:
        raise UserError("the app needs Streamlit: pip install 'medclip[app]'.")
    Index(index).model()
    options = {
        "server.address": "127.0.0.1",
        "server.port": port,
        "server.headless": "true",
        "server.maxUploadSize": 50,  # megabytes
        "client.toolbarMode": "minimal",
        "browser.gatherUsageStats": "false",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    served = subprocess.Popen([sys.executable, "-m", "streamlit", "run", str(APP), *flags, "--", str(index)])
    signal.signal(signal.SIGTERM, lambda *_: served.terminate())  # else the page outlives the command
    code = served.wait()
    if code not in (0, -signal.SIGINT, -signal.SIGTERM, 128 + signal.SIGINT):
        raise WorkError(f"the app ended with code {code}; is port {port} free?")
