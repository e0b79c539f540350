"""Starts the Streamlit app."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from medclip.app.config import Served
from medclip.errors import UserError, WorkError
from medclip.search.index import Index

FRAME, SERVER = Path(__file__).with_name("main.py"), Path(__file__).with_name("server.py")
MAX_UPLOAD = 50  # megabytes
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Address:
    """Where the app answers."""

    host: str = "127.0.0.1"
    port: int = 8501
    path: str = ""
    """Below which it lies behind a proxy, such as "radiology"."""
    name: str = ""
    """The host name that browsers ask for, where a proxy stands before it."""


def launch(served: Served, address: Address = Address()) -> None:
    """Check the indexes and their models, then serve until interrupted."""
    if importlib.util.find_spec("streamlit") is None:
        raise UserError("the app needs Streamlit: pip install 'medclip[app]'.")
    for folder, model in served.places().values():
        Index(Path(folder)).model(model and Path(model))
    if served.evaluation is not None and not served.evaluation.is_dir():
        raise UserError(f"--evaluation {served.evaluation} is no folder; medclip evaluate … --out DIR makes one.")
    command = [sys.executable, "-m", "streamlit", "run", str(SERVER), *flags(address), "--", *served.words()]
    running = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: running.terminate())  # else the page outlives the command
    code = running.wait()
    if code not in (0, -signal.SIGINT, -signal.SIGTERM, 128 + signal.SIGINT):
        raise WorkError(f"the app ended with code {code}; is port {address.port} free?")


def flags(address: Address) -> list[str]:
    """Streamlit's settings as flags, which no file in the folder that we stand in can change."""
    # of a foreign page whose name now leads to this machine a browser still sends the name: it is refused
    names = [address.name] if address.name else LOOPBACK if address.host in LOOPBACK else []
    settings = {
        "server.address": address.host,
        "server.port": str(address.port),
        "server.baseUrlPath": address.path.strip("/"),
        "server.headless": "true",
        "server.maxUploadSize": str(MAX_UPLOAD),
        "server.fileWatcherType": "none",  # nothing here changes while it runs
        "server.enableXsrfProtection": "true",
        "server.enableCORS": "true",
        **({"browser.serverAddress": address.name} if address.name else {}),
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "logger.level": "error",
        **{f"theme.{name}": value for name, value in THEME.items()},
    }
    said = [*settings.items(), *(("server.allowedHosts", name) for name in names)]
    return [f"--{name}={value}" for name, value in said]


THEME = {
    "light.primaryColor": "#0b6e75",
    "light.secondaryBackgroundColor": "#f1f5f6",
    "dark.primaryColor": "#24868e",
    "dark.backgroundColor": "#0d1114",  # a reading room is dark
    "dark.secondaryBackgroundColor": "#171d21",
    "baseRadius": "0.5rem",
    "headingFontWeights": "600",
    "headingFontSizes": '["1.75rem", "1.4rem", "1.2rem", "1.1rem", "1rem", "1rem"]',
    "paddingTop": "1rem",
    "paddingBottom": "1rem",
    "showWidgetBorder": "true",
}
