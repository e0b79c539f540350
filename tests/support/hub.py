"""An imitation of the Hugging Face Hub on loopback, as far as its client needs one to list and to fetch models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Files = dict[str, bytes]


@dataclass
class Hub:
    """Repositories by name, each with files by revision; `fetched` are the files that were asked for, in order."""

    repositories: dict[str, dict[str, Files]] = field(default_factory=dict)
    authors: dict[str, dict[int, str]] = field(default_factory=dict)
    """Of pull requests, by number."""
    gated: set[str] = field(default_factory=set)
    fetched: list[str] = field(default_factory=list)
    """Such as "main:config.json" or "refs/pr/1:model.safetensors"."""

    def add(self, name: str, folder: Path, revision: str = "main", author: str = "SFconvertbot") -> None:
        """A folder's files as a revision; that of a pull request (refs/pr/N) is by `author`."""
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.repositories.setdefault(name, {})[revision] = files
        if revision.startswith("refs/pr/"):
            self.authors.setdefault(name, {})[int(revision.removeprefix("refs/pr/"))] = author

    def commit(self, name: str, revision: str) -> str:
        return hashlib.sha1(f"{name} {revision}".encode()).hexdigest()

    def revision(self, name: str, reference: str) -> str | None:
        """The name of a revision, given that or its commit."""
        names = self.repositories.get(name, {})
        return next((each for each in names if reference in (each, self.commit(name, each))), None)

    def answer(self, path: str, query: dict[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of a request."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        api = parts[:2] == ["api", "models"]
        parts = parts[2:] if api else parts
        name, action, rest = "/".join(parts[:2]), (parts[2:] or [""])[0], parts[3:]
        if name in self.gated:
            return 403, {"X-Error-Code": "GatedRepo", "X-Error-Message": f"Access to model {name} is restricted."}, b""
        if name not in self.repositories:
            return 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b""
        if api and action == "discussions":
            return 200, {}, json.dumps(self._discussions(name, query)).encode()
        revision = self.revision(name, rest[0] if rest else "main")
        if revision is None:
            return 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}, b""
        files = self.repositories[name][revision]
        if api:
            return 200, {}, json.dumps(self._list(name, revision, files, action)).encode()
        file = "/".join(rest[1:])
        if file not in files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}, b""
        if f"{revision}:{file}" not in self.fetched:
            self.fetched.append(f"{revision}:{file}")
        tag = hashlib.sha256(files[file]).hexdigest()
        return 200, {"ETag": f'"{tag}"', "X-Repo-Commit": self.commit(name, revision)}, files[file]

    def _list(self, name: str, revision: str, files: Files, action: str) -> Any:
        if action == "tree":
            return [
                {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for path, data in files.items()
            ]
        siblings = [{"rfilename": path} for path in files]
        return {"id": name, "sha": self.commit(name, revision), "siblings": siblings, "private": False, "tags": []}

    def _discussions(self, name: str, query: dict[str, list[str]]) -> Any:
        authors = {number: author for number, author in self.authors.get(name, {}).items() if author in query["author"]}
        discussions = [
            {"title": "Adding `safetensors` variant of this model", "num": number, "author": {"name": author},
             "createdAt": "2023-03-01T00:00:00.000Z", "status": "open", "isPullRequest": True,
             "repo": {"name": name, "type": "model"}}
            for number, author in authors.items()
        ]  # fmt: skip
        return {"discussions": discussions, "count": len(discussions), "start": 0}


@contextmanager
def serve_hub() -> Iterator[tuple[Hub, str]]:
    """An empty Hub and its address."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            status, headers, body = hub.answer(url.path, parse_qs(url.query))
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
