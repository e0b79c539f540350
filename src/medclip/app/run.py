"""`medclip app`: what it serves, where, and the Streamlit process that does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from medclip.errors import UserError, WorkError
from medclip.folder_kinds import EVALUATION_FILES, what_instead
from medclip.require import require
from medclip.search.reader import IndexReader
from medclip.stop_signals import STOP_SIGNALS, handle_stop_signals

MAIN_SCRIPT, SERVER_SCRIPT = Path(__file__).with_name("main.py"), Path(__file__).with_name("server.py")
MAX_UPLOAD_MB = 50
LOOPBACK = ("127.0.0.1", "localhost", "::1")
THEME = {
    "light.primaryColor": "#0a6970",
    "light.secondaryBackgroundColor": "#f1f5f6",
    "dark.primaryColor": "#24868e",
    "dark.backgroundColor": "#0d1114",  # a reading room is dark
    "dark.secondaryBackgroundColor": "#171d21",
    "baseRadius": "0.5rem",
    "headingFontWeights": "600",
    "headingFontSizes": '["1.75rem", "1.2rem", "1.1rem", "1rem", "1rem", "1rem"]',
    "paddingTop": "1rem",
    "paddingBottom": "1rem",
    "showWidgetBorder": "true",
}


class IndexLocation(NamedTuple):
    """Where an index is, and where its model is if that has moved."""

    folder: Path
    model: Path | None = None


@dataclass(frozen=True)
class AppConfig:
    """What the app shows."""

    indexes: tuple[Path, ...]
    models: tuple[Path, ...] = ()
    """Where the models of the indexes are now, in the same order. Empty: where the indexes say."""
    evaluation: Path | None = None
    """The folder of `medclip evaluate … --out`."""
    edit: bool = False
    """Whether the map may change the indexes."""

    def __post_init__(self):
        if not self.indexes:
            raise UserError("give an index: medclip app --index INDEX (see medclip index build).")
        if self.models and len(self.models) != len(self.indexes):
            raise UserError(f"--model was given {len(self.models)} times for {len(self.indexes)} indexes.")

    def locations(self) -> dict[str, IndexLocation]:
        """Each index by name: the shortest ends of the paths that tell them apart."""
        folders = [folder.resolve() for folder in self.indexes]
        if len(set(folders)) < len(folders):
            raise UserError("an index was given twice.")
        depth = next(n for n in range(1, 99) if len({folder.parts[-n:] for folder in folders}) == len(folders))
        return {
            "/".join(folder.parts[-depth:]): IndexLocation(folder, model)
            for folder, model in zip(folders, self.models or [None] * len(folders), strict=True)
        }

    def to_json(self) -> str:
        """One line, for the command line of the process that serves, in another working folder."""
        return json.dumps(
            {
                "indexes": [str(folder.absolute()) for folder in self.indexes],
                "models": [str(folder.absolute()) for folder in self.models],
                "evaluation": str(self.evaluation.absolute()) if self.evaluation else None,
                "edit": self.edit,
            }
        )

    @staticmethod
    def from_json(line: str) -> AppConfig:
        """The inverse of `to_json`, but that its paths are absolute."""
        fields = json.loads(line)
        return AppConfig(
            tuple(map(Path, fields["indexes"])),
            tuple(map(Path, fields["models"])),
            Path(fields["evaluation"]) if fields["evaluation"] else None,
            fields["edit"],
        )


@dataclass(frozen=True)
class Address:
    """Where the app answers."""

    host: str = "127.0.0.1"
    port: int = 8501
    base_path: str = ""
    """The path below which a proxy serves the app, such as "radiology"."""
    server_name: str = ""
    """The host name that browsers send to that proxy."""


def launch(config: AppConfig, address: Address = Address()) -> None:
    """Check the indexes and their models, then serve until interrupted. UserError, or WorkError where serving fails."""
    require("streamlit", extra="app")
    for location in config.locations().values():
        IndexReader(location.folder).model_path(location.model)
    if (folder := config.evaluation) is not None and not any((folder / name).is_file() for name in EVALUATION_FILES):
        remark = what_instead(folder, EVALUATION_FILES[0])
        raise UserError(f"--evaluation {folder} holds no evaluation; medclip evaluate … --out DIR writes one.{remark}")
    if config.edit and (address.host not in LOOPBACK or address.server_name):
        raise UserError(
            "--edit lets whoever opens the page change the index: not with --server-name or another --host."
        )
    flags = streamlit_flags(address)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "streamlit", "run", str(SERVER_SCRIPT), *flags, "--", config.to_json()],
        cwd=SERVER_SCRIPT.parent,  # its settings are read from where it starts, which may be a stranger's folder
        env=_environment(),
    )
    with handle_stop_signals(lambda *_: process.terminate()):  # else the page outlives the command
        code = process.wait()
    if code < 0 and -code not in STOP_SIGNALS:
        why = ", as where a file of an index is cut while it is read" if -code == signal.SIGBUS else ""
        raise WorkError(f"the app was ended by a signal ({signal.strsignal(-code)}){why}; see medclip verify INDEX.")
    if code not in (0, *(-number for number in STOP_SIGNALS), 128 + signal.SIGINT):
        raise WorkError(f"the app ended with code {code}; is port {address.port} free?")


def _environment() -> dict[str, str]:
    """The environment, by which a process of another working folder finds the same modules."""
    path = [os.path.abspath(part) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]  # noqa: PTH100
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def streamlit_flags(address: Address) -> list[str]:
    """Streamlit's settings as flags: no file of the user's can override them."""
    # of a foreign page whose name now leads to this machine a browser still sends the name: it is refused
    hosts = [address.server_name] if address.server_name else LOOPBACK if address.host in LOOPBACK else []
    settings = {
        "server.address": address.host,
        "server.port": str(address.port),
        "server.baseUrlPath": address.base_path.strip("/"),
        "server.headless": "true",
        "server.maxUploadSize": str(MAX_UPLOAD_MB),
        "server.fileWatcherType": "none",  # nothing here changes while it runs
        "server.enableXsrfProtection": "true",
        "server.enableCORS": "true",
        **({"browser.serverAddress": address.server_name} if address.server_name else {}),
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "logger.level": "error",
        **{f"theme.{name}": value for name, value in THEME.items()},
    }
    pairs = [*settings.items(), *(("server.allowedHosts", host) for host in hosts)]
    return [f"--{name}={value}" for name, value in pairs]
