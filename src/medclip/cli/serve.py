"""The command that answers over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Serve:
    """Serve an index over HTTP: search, similar, classify, embed, thumbnails. The schema is at /openapi.json."""

    index: Path
    """An index folder. What is added or deleted shows at once."""
    host: str = "127.0.0.1"
    """The address to listen on. Any but this machine's own should have a key and TLS in front: docs/deploy.md."""
    port: int = 8000
    """The port; 0: any that is free."""
    workers: int = 1
    """Processes; each has the model in memory, all share the index."""
    model: Path | None = None
    """The model that made the index, where it has moved."""
    api_key_file: Path | None = None
    """A file of keys, one a line, any of which opens the API. Without it: MEDCLIP_API_KEY, or no key."""
    log_queries: bool = False
    """Write the words of queries to the log. They can say much about people."""

    def run(self) -> None:
        from medclip.serve.run import listen

        listen(self.index, self.model, self.host, self.port, self.workers, self.api_key_file, self.log_queries)
