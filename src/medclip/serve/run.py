"""Starts the HTTP API: checks first, then uvicorn, in one process or several."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import tempfile
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

from medclip.errors import UserError, WorkError
from medclip.progress import console

NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
GRACE_S = 35  # a little more than a request may take


def listen(
    index: Path, model: Path | None, host: str, port: int, workers: int, key_file: Path | None, log_queries: bool
) -> None:
    """Check the index, its model and the keys, then serve until interrupted or terminated."""
    if absent := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise UserError(f"serving needs {absent[0]}: pip install 'medclip[serve]'.")
    if workers < 1:
        raise UserError("--workers must be at least 1.")
    from medclip.search.index import Index
    from medclip.serve.gate import read_keys

    Index(index).model(model)
    keys = read_keys(key_file)
    settings = {"index": index, "model": model, "key_file": key_file}
    told = {name: str(path.resolve()) if path else None for name, path in settings.items()}
    os.environ["MEDCLIP_SERVE"] = json.dumps(told | {"log_queries": log_queries})
    with _bound(host, port) as listening, ExitStack() as stack:
        if workers > 1:  # before anything imports prometheus_client in a worker
            counts = stack.enter_context(tempfile.TemporaryDirectory(prefix="medclip-metrics-"))
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = counts
        shown = f"[{host}]" if ":" in host else host
        console.print(f"serving {index} on http://{shown}:{listening.getsockname()[1]}", soft_wrap=True, markup=False)
        if not keys and not _loopback(host):
            console.print("anybody who reaches this address can ask: give --api-key-file.", soft_wrap=True)
        _run(listening, workers)


def _run(listening: socket.socket, workers: int) -> None:
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    config = uvicorn.Config(
        "medclip.serve.api:from_environment",
        factory=True,
        workers=workers,
        log_level="warning",
        access_log=False,  # it would hold paths and query strings; ours holds templates of routes
        proxy_headers=False,  # X-Forwarded-… are anybody's to send
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=GRACE_S,
        timeout_worker_healthcheck=60,
    )
    # uvicorn ends by raising the signal again: that it was asked to end is no failure
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    if workers > 1:
        Multiprocess(config, sockets=[listening]).run()
        return
    server = uvicorn.Server(config)
    server.run(sockets=[listening])
    if not server.started:
        raise WorkError("the service did not start.")


def _bound(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise WorkError(f"{host}:{port} cannot be listened on ({error}); another --port?") from None
    listening.set_inheritable(True)
    return listening


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
