"""Start the HTTP API: checks first, then uvicorn, in one process or several."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path

from medclip.errors import UserError, WorkError
from medclip.hosts import is_loopback
from medclip.progress import console
from medclip.require import require
from medclip.stop_signals import handle_stop_signals

REQUIRED_PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
SETTINGS_VARIABLE = "MEDCLIP_SERVE"
"""The environment variable by which the command's settings reach its worker processes."""
SHUTDOWN_TIMEOUT_S = 35  # a little more than a request may take


def serve(
    index: Path,
    model: Path | None,
    host: str,
    port: int,
    workers: int,
    server_name: str,
    key_file: Path | None,
    log_queries: bool,
) -> None:
    """Check the index, its model and the keys, then serve until interrupted or terminated."""
    for package in REQUIRED_PACKAGES:
        require(package, extra="serve")
    if workers < 1:
        raise UserError("--workers must be at least 1.")
    from medclip.search.reader import IndexReader
    from medclip.serve.gate import read_keys

    IndexReader(index).model_path(model)
    keys = read_keys(key_file)
    paths = {"index": index, "model": model, "key_file": key_file}
    settings = {name: str(path.resolve()) if path else None for name, path in paths.items()}
    names = {"host": host, "server_name": server_name}
    os.environ[SETTINGS_VARIABLE] = json.dumps(settings | names | {"log_queries": log_queries})
    with _listen(host, port) as server_socket, ExitStack() as stack:
        if workers > 1:  # before a worker imports prometheus_client
            metrics_folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="medclip-metrics-"))
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics_folder
        url_host = f"[{host}]" if ":" in host else host
        url = f"http://{url_host}:{server_socket.getsockname()[1]}"
        console.print(f"serving {index} on {url}", soft_wrap=True, markup=False)
        if not keys and not is_loopback(host):
            console.print("anyone who reaches this address can search: give --api-key-file.", soft_wrap=True)
        _run(server_socket, workers)


def _run(server_socket: socket.socket, workers: int) -> None:
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    from medclip.serve.connections import Connection

    config = uvicorn.Config(
        "medclip.serve.api:app_from_environment",
        factory=True,
        workers=workers,
        log_level="warning",
        access_log=False,  # it would hold paths and query strings; ours holds templates of routes
        proxy_headers=False,  # anyone can send X-Forwarded-…
        server_header=False,
        http=Connection,
        ws="none",
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        timeout_worker_healthcheck=60,
    )
    # uvicorn ends by raising the signal again, which would make an orderly end a failure
    with handle_stop_signals(lambda *_: None) as before:
        server = Multiprocess(config, sockets=[server_socket]) if workers > 1 else uvicorn.Server(config)
        # a terminal that closes is an end too, where uvicorn's own SIGHUP would start the workers anew
        is_end = signal.SIGHUP in before
        signal.signal(signal.SIGHUP, (lambda *_: signal.raise_signal(signal.SIGTERM)) if is_end else signal.SIG_IGN)
        if isinstance(server, Multiprocess):
            server.run()
            return
        server.run(sockets=[server_socket])
    if not server.started:
        raise WorkError("the service did not start.")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        server_socket = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        is_host = isinstance(error, socket.gaierror) or getattr(error, "errno", None) == errno.EADDRNOTAVAIL
        raise WorkError(
            f"{host}:{port} cannot be listened on ({error}); another --{'host' if is_host else 'port'}?"
        ) from None
    server_socket.set_inheritable(True)
    return server_socket
