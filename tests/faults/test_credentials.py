"""Secrets go to hosts that the user named, not over clear text to another machine, not where a redirect points."""

import json
import os
import subprocess
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer

import pytest

from medclip.atomic_io import write_with_checksum
from medclip.data.paths import parse_path, storage_errors
from medclip.data.prepare import prepare
from medclip.errors import UserError, WorkError
from medclip.hosts import check_address, check_hub_endpoint, is_clear_text, is_loopback, without_credentials
from medclip.model.export import push
from medclip.model.hub_download import fetch_model, fetch_tokenizer
from medclip.search.curate import migrate
from medclip.search.reader import IndexReader
from medclip.search.stores.milvus import connect
from medclip.training.trackers import require_trackers
from support.made_indexes import make_index, random_units

SECRET = "root:a-secret-token"
# An address that nothing answers at (RFC 5737): a test that reached out would wait for it.
ELSEWHERE = "192.0.2.1:19530"


@pytest.fixture
def milvus_listener():
    """A gRPC server that knows no call and remembers what came with each: (address, list of metadata)."""
    grpc = pytest.importorskip("grpc")
    received = []

    class Recorder(grpc.GenericRpcHandler):
        def service(self, details):
            received.append({item.key: item.value for item in details.invocation_metadata})

    server = grpc.server(futures.ThreadPoolExecutor(2), (Recorder(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", received
    server.stop(None).wait()


def index_at(folder, address):
    """An index from elsewhere, which names a server."""
    make_index(folder, random_units(5))
    fields = json.loads((folder / "index.json").read_text())
    write_with_checksum(folder / "index.json", fields | {"vector_store": f"milvus://{address}"})
    return folder


def test_a_foreign_index_gets_no_token(tmp_path, milvus_listener, monkeypatch):
    address, received = milvus_listener
    monkeypatch.setenv("MILVUS_TOKEN", SECRET)
    for uri in ("", "http://127.0.0.1:1", f"https://{ELSEWHERE}"):
        monkeypatch.setenv("MILVUS_URI", uri)
        with pytest.raises(UserError, match=rf"MILVUS_TOKEN is sent only to .* MILVUS_URI=http://{address}"):
            IndexReader(index_at(tmp_path / f"index{len(uri)}", address))
    assert received and not any("authorization" in metadata for metadata in received)


@pytest.mark.parametrize("names_it", ["variable", "command"])
def test_a_server_that_the_user_named_gets_the_token(tmp_path, milvus_listener, monkeypatch, names_it):
    address, received = milvus_listener
    monkeypatch.setenv("MILVUS_TOKEN", SECRET)
    with pytest.raises(UserError, match="does not answer as it should"):
        if names_it == "variable":
            monkeypatch.setenv("MILVUS_URI", f"http://{address}/")
            IndexReader(index_at(tmp_path / "index", address))
        else:
            migrate(make_index(tmp_path / "index", random_units(5)), f"milvus://{address}")
    assert any("authorization" in metadata for metadata in received)


@pytest.fixture
def proxy(monkeypatch):
    """A proxy that the environment names for everything: what it was given."""
    received = []

    class Handler(StreamRequestHandler):
        def handle(self):
            received.append(self.rfile.readline())

    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for variable in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy"):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{server.server_address[1]}")
        yield received
        server.shutdown()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_proxy_carries_the_token_for_a_server_of_this_machine(monkeypatch, proxy, milvus_listener, host):
    address, received = milvus_listener
    address = address.replace("127.0.0.1", host)
    monkeypatch.setenv("MILVUS_TOKEN", SECRET)
    monkeypatch.setenv("MILVUS_URI", f"http://{address}")
    with pytest.raises(UserError, match="does not answer as it should"):
        connect(f"milvus://{address}")
    assert proxy == [] and any("authorization" in metadata for metadata in received)


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("", rf"{ELSEWHERE}, which you have not named: MILVUS_URI=https://{ELSEWHERE}"),
        ("https://milvus.example:19530", "which you have not named"),
        (f"http://{ELSEWHERE}", f"MILVUS_TOKEN is not sent over clear text: MILVUS_URI=https://{ELSEWHERE}"),
        ("milvus.example:19530", "MILVUS_URI is not https://HOST:PORT"),
        (f"https://root:secret@{ELSEWHERE}", "MILVUS_URI is not https://HOST:PORT"),
    ],
)
def test_a_server_beyond_this_machine_is_asked_where_it_is_named_and_over_tls(tmp_path, monkeypatch, uri, sentence):
    monkeypatch.setenv("MILVUS_TOKEN", SECRET)
    monkeypatch.setenv("MILVUS_URI", uri)
    with pytest.raises(UserError, match=sentence) as error:
        IndexReader(index_at(tmp_path / "index", ELSEWHERE))
    assert "secret" not in str(error.value)


def test_a_token_for_a_new_store_does_not_leave_over_clear_text(tmp_path, monkeypatch):
    monkeypatch.setenv("MILVUS_TOKEN", SECRET)
    folder = make_index(tmp_path / "index", random_units(5))
    with pytest.raises(UserError, match="MILVUS_TOKEN is not sent over clear text"):
        migrate(folder, f"milvus://{ELSEWHERE}")
    assert IndexReader(folder).manifest.vector_store == "exact"


@pytest.mark.parametrize(
    "store", ["milvus://127.0.0.1", "milvus://127.0.0.1:1@evil.example:1", "milvus://127.0.0.1:1/x", "milvus://a b:1",
              "milvus://\x1b[2J:1", "unix:///tmp/x", "/tmp/milvus.db", "Exact", "", 5, None, ["exact"]]
)  # fmt: skip
def test_a_store_that_is_none_is_a_damaged_index(tmp_path, store):
    make_index(tmp_path / "index", random_units(5))
    fields = json.loads((tmp_path / "index" / "index.json").read_text())
    write_with_checksum(tmp_path / "index" / "index.json", fields | {"vector_store": store})
    with pytest.raises(UserError, match="is damaged: its vector_store"):
        IndexReader(tmp_path / "index")


def test_a_global_cluster_which_would_name_other_servers_is_not_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("MILVUS_TOKEN", SECRET)
    monkeypatch.setenv("MILVUS_URI", "https://in1.Global-Cluster.example:443")
    with pytest.raises(UserError, match="names the servers of others"):
        migrate(make_index(tmp_path / "index", random_units(5)), "milvus://in1.global-cluster.example:443")


def test_the_hubs_token_does_not_leave_over_clear_text(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://192.0.2.1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for work in (
        lambda: fetch_model("lab/clip", None, lambda *_: ()),
        lambda: fetch_tokenizer("lab/clip"),
        lambda: push(tmp_path, "lab/clip"),
        lambda: parse_path("hf://lab/pairs"),
    ):
        with pytest.raises(
            UserError, match=r"HF_TOKEN is not sent over clear text: HF_ENDPOINT is http://192\.0\.2\.1"
        ):
            work()


@pytest.mark.parametrize(
    ("tracker", "server", "secret"),
    [("wandb", "WANDB_BASE_URL", "WANDB_API_KEY"), ("mlflow", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN"),
     ("mlflow", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_PASSWORD"),
     ("trackio", "TRACKIO_SERVER_URL", "TRACKIO_WRITE_TOKEN")],
)  # fmt: skip
def test_a_trackers_secret_does_not_leave_over_clear_text(monkeypatch, proxy, tracker, server, secret):
    monkeypatch.setenv(secret, "a-secret")
    for address, remedy in (("http://tracker.example:5000", f"give {server} as https://"),
                            ("http://[::1]:5000", "Set NO_PROXY=::1")):  # fmt: skip
        monkeypatch.setenv(server, address)
        with pytest.raises(UserError, match=f"{secret} is not sent over clear text: .*{remedy}"):
            require_trackers([tracker])


@pytest.mark.parametrize(
    ("tracker", "server", "address"),
    [("mlflow", "MLFLOW_TRACKING_URI", "http://me:s3kr1t@tracker.example:5000"),
     ("wandb", "WANDB_BASE_URL", "http://me:s3kr1t@tracker.example"),
     ("trackio", "TRACKIO_SERVER_URL", "http://tracker.example:7860/?write_token=s3kr1t")],
)  # fmt: skip
def test_a_secret_within_the_address_of_a_tracker_neither(monkeypatch, tracker, server, address):
    monkeypatch.setenv(server, address)
    with pytest.raises(UserError, match=f"the secret in {server} is not sent over clear text") as error:
        require_trackers([tracker])
    assert "s3kr1t" not in str(error.value)


@pytest.mark.parametrize(
    "settings",
    ["[default]\nbase_url = https://evil.example", "[DEFAULT]\nhttps_proxy: http://evil.example", "[default]\nx\n"],
)
@pytest.mark.parametrize("folder", ["wandb", ".wandb"])
def test_a_file_of_the_working_folder_does_not_choose_where_a_trackers_secret_goes(
    tmp_path, monkeypatch, folder, settings
):
    """W&B reads it: base_url, proxies and more."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "settings").write_text(settings)
    with pytest.raises(UserError, match=f"{folder}/settings of the working folder .* WANDB_BASE_URL"):
        require_trackers(["wandb"])


def test_nor_the_hubs_to_a_space_of_a_tracker(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://192.0.2.1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("TRACKIO_SPACE_ID", "lab/runs")
    with pytest.raises(UserError, match="HF_TOKEN is not sent over clear text"):
        require_trackers(["trackio"])


def test_nor_through_a_proxy_from_this_machine(monkeypatch, proxy):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://localhost:8080")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(UserError, match=r"HF_TOKEN is not sent over clear text: .* Set NO_PROXY=localhost"):
        parse_path("hf://lab/pairs")
    monkeypatch.setenv("no_proxy", "localhost")
    check_hub_endpoint()


def test_loopback_is_what_no_network_carries():
    for host in ("localhost", "LOCALHOST", "127.0.0.1", "127.200.0.9", "::1"):
        assert is_loopback(host), host
    for host in ("", "localhost.evil.example", "127.0.0.1.nip.io", "0.0.0.0", "10.0.0.1", "evil.example", "127.1"):
        assert not is_loopback(host), host
    assert is_clear_text("http://evil.example") and is_clear_text("HTTP://10.0.0.1:80/x")
    assert not any(map(is_clear_text, ("https://evil.example", "http://[::1]:80", "http://localhost/x", "")))
    with pytest.raises(UserError, match="is not a URL"):
        is_clear_text("http://[x")


@pytest.mark.slow
def test_a_redirect_of_the_hub_does_not_carry_the_token(tmp_path):
    received = {"first": [], "second": []}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = "first" if self.server is first else "second"
            received[name].append(self.headers.get("Authorization"))
            self.send_response(307 if name == "first" else 404)
            self.send_header("Location", f"http://localhost:{second.server_address[1]}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as first,
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as second,
    ):
        for server in (first, second):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        hub = {"HF_ENDPOINT": f"http://127.0.0.1:{first.server_address[1]}", "HF_TOKEN": "hf_secret"}
        command = [sys.executable, "-m", "medclip.cli.main", "info", "lab/clip"]
        environment = os.environ | hub | {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        for server in (first, second):
            server.shutdown()
    assert done.returncode == 2 and "hf_secret" not in done.stdout + done.stderr
    assert "Bearer hf_secret" in received["first"]
    assert received["second"] == [] or set(received["second"]) == {None}


SECRET_ADDRESSES = [
    "https://host/pairs.csv?X-Amz-Signature=s3kr1t",
    "https://s3kr1t@host/data",
    "ftp://me:s3kr1t@host/pairs.csv",
    "ftp://me:p@s3kr1t@host/pairs.csv",
    "simplecache::https://me:s3kr1t@host/pairs.csv",
    "hf://owner/name?token=s3kr1t",
]


@pytest.mark.parametrize("address", SECRET_ADDRESSES)
def test_an_address_with_a_secret_is_refused_and_not_repeated(tmp_path, address):
    with pytest.raises(UserError, match="a user or a query, which may be secrets") as error:
        prepare(address, tmp_path / "out")
    assert "s3kr1t" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_an_address_without_a_secret_is_taken():
    for address in (
        "sftp://me@host/a",
        "abfs://container@account/a",
        "github://owner:name@main/a",
        "hf://owner/name@v1",
    ):
        check_address(address)
    for address in ("s3://bucket/what?.csv", "https://host:8080/a@b:c/x.csv", "a/b?c#d", "memory://bucket/a"):
        check_address(address)


@pytest.mark.parametrize("address", SECRET_ADDRESSES)
def test_what_a_library_says_of_an_address_is_shown_without_its_secrets(address):
    with pytest.raises(WorkError, match="cannot be reached") as error, storage_errors(address):
        raise OSError(f"403, message='Forbidden', url='{address}'")
    assert "s3kr1t" not in str(error.value)


def test_a_signed_address_in_a_table_is_not_written_down(tmp_path):
    (tmp_path / "pairs.csv").write_text(f"image,caption\n{SECRET_ADDRESSES[0]},CT of the chest\n")
    with pytest.raises(WorkError, match=r"no row of .* became a pair") as error:
        prepare(str(tmp_path / "pairs.csv"), tmp_path / "out", num_workers=1)
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert b"s3kr1t" not in written and "s3kr1t" not in str(error.value)


@pytest.mark.parametrize("part", ["http://", ":", "a?", "://a@", "hf://x#"])
def test_a_text_of_parts_of_addresses_takes_a_moment(part):
    """Where the time grew with the square of the length, it would be hours."""
    text = f"x://{part * (2**20 // len(part))}"
    assert len(without_credentials(text)) <= len(text)
