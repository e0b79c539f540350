"""The commands that serve an index: the search app, the HTTP API and the MCP server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from medclip.cli.args import ConfigFile, Index, IndexModel, index_model


@dataclass(frozen=True, kw_only=True)
class App:
    """Serve the search app (Streamlit). On this machine only, unless --host says otherwise; it has no login.

    To let others in, put a proxy with TLS and a login before it, and give --server-name and, below a path, --base-path.
    """

    index: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="INDEX [INDEX …]")]
    """An index folder, or several: answers of two can be seen side by side."""
    model: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODEL [MODEL …]")] = ()
    """The models that made the indexes, in their order, where they have moved."""
    evaluation: Path | None = None
    """A folder that `medclip evaluate … --out DIR` wrote, shown beside the model card."""
    edit: bool = False
    """Let the map change the index: delete and relabel what is marked. On this machine only."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is all of this machine's."""
    port: int = 8501
    """The port to listen on."""
    base_path: str = ""
    """Path below which a proxy serves the app, for example radiology."""
    server_name: str = ""
    """Host name that browsers ask a proxy for, for example search.example.org; requests for others are refused."""
    config: ConfigFile = None

    def run(self) -> None:
        from medclip.app.run import Address, AppConfig, launch
        from medclip.model.checkpoint import model_folder

        config = AppConfig(self.index, tuple(map(model_folder, self.model)), self.evaluation, self.edit)
        launch(config, Address(self.host, self.port, self.base_path, self.server_name))


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Serve an index over HTTP: search, similar, classify, explain, embed, thumbnails. The schema is at /openapi.json,
    as a page at /docs."""

    index: Index
    host: str = "127.0.0.1"
    """The address to listen on. Any but this machine's own should have a key and TLS in front: docs/deploy.md."""
    port: int = 8000
    """The port; 0: any that is free."""
    workers: int = 1
    """Processes; each has the model in memory, all share the index."""
    model: IndexModel = None
    server_name: str = ""
    """Host name that clients ask for. Without it and without a key: names of this machine's loopback, and addresses
    where --host is beyond it."""
    api_key_file: Path | None = None
    """A file of keys, one a line, any of which opens the API. Without it: MEDCLIP_API_KEY, or no key."""
    log_queries: bool = False
    """Write the texts of queries to the log. They can say much about people."""
    config: ConfigFile = None

    def run(self) -> None:
        from medclip.serve.run import serve

        model = index_model(self.model)
        keys, names = self.api_key_file, self.server_name
        serve(self.index, model, self.host, self.port, self.workers, names, keys, self.log_queries)


@dataclass(frozen=True, kw_only=True)
class Mcp:
    """Serve an index to agents (MCP) over standard input and output: search, similar, classify, explain.

    The agent's program starts this command; see docs/agents.md.
    """

    index: Index
    model: IndexModel = None
    config: ConfigFile = None

    def run(self) -> None:
        from medclip.require import require

        for package in ("mcp", "fastapi", "prometheus_client"):
            require(package, extra="mcp")
        from medclip.serve.mcp_server import run

        run(self.index, index_model(self.model))
