"""Names, slow and silent clients, floods and wrong keys, over real sockets: before a stand-in for the routes, fast, and
before the command."""

import asyncio
import contextlib
import re
import select
import socket
import threading
import time

import pytest
import uvicorn

from medclip.serve import connections, gate
from support.served import start_server
from support.waiting import wait_until

KEY = "the-key-of-the-tests"
NEIGHBOR = ("127.0.0.2", 0)  # of Linux's loopback network, another address than the client's own


class Stub:
    """The gate and the connections of the API in a thread, before routes that do nothing."""

    def __init__(self, *arguments):
        self.is_held, self.gate = True, gate.Gate(self.routes, *arguments)
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        config = uvicorn.Config(self.gate, http=connections.Connection, ws="none", lifespan="off", log_level="error")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],))
        self.thread.start()

    async def routes(self, scope, receive, send):
        """Answers "ok" once the body is read; /hold when it is held no longer."""
        while (await receive()).get("more_body"):
            pass
        while scope["path"] == "/hold" and self.is_held:
            await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    def connect(self, source=None):
        return socket.create_connection(self.socket.getsockname(), 60, source)

    def stop(self):
        self.is_held, self.server.should_exit = False, True
        self.thread.join(60)


@pytest.fixture
def serve():
    """Starts a stub with the arguments of a `Gate`, closed at the end."""
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            stub = Stub(*arguments)
            stack.callback(stub.stop)
            return stub

        yield start


def request(path="/", host="localhost", key="", body=b"", length=None):
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body) if length is None else length}\r\n"
    return (head + (f"X-API-Key: {key}\r\n" if key else "") + "\r\n").encode() + body


def status(connection):
    """The status of the response that comes, 0 where the connection ends without one."""
    with contextlib.suppress(ConnectionResetError):
        if match := re.match(rb"HTTP/1.1 (\d+)", connection.recv(65536)):
            return int(match[1])
    return 0


def ask(server, source=None, **fields):
    with server.connect(source=source) as connection:
        connection.sendall(request(**fields))
        return status(connection)


def open_many(stack, server, count, content=b"", source=None):
    opened = [stack.enter_context(server.connect(source=source)) for _ in range(count)]
    for connection in opened:
        with contextlib.suppress(ConnectionError):  # one that had to make room for the last
            connection.sendall(content)
    return opened


@pytest.mark.parametrize(
    ("host", "server_name", "has_keys", "accepted", "refused"),
    [
        ("127.0.0.1", "", False, ["localhost", "127.0.0.1", "::1", "127.3.2.1"],
         ["evil.example", "localhost.evil.example", "10.0.0.5", "", "127.0.0.1.nip.io", "127.1"]),
        ("127.0.0.1", "Search.Example.org", False, ["search.example.org", "localhost"],
         ["evil.example", "example.org"]),
        ("0.0.0.0", "", False, ["10.0.0.5", "fe80::1", "localhost"], ["evil.example", "radiology", ""]),
        ("radiology", "", False, ["radiology", "10.0.0.5"], ["evil.example"]),
        ("0.0.0.0", "", True, ["medclip", "search.example.org"], []),
        ("0.0.0.0", "search.example.org", True, ["search.example.org", "10.0.0.5"], ["evil.example"]),
    ],
)  # fmt: skip
def test_a_service_answers_to_its_own_names(host, server_name, has_keys, accepted, refused):
    for name in (*accepted, *refused):
        assert gate.accepts_name(name, host, server_name, has_keys) == (name in accepted), name


def test_a_foreign_host_name_is_misdirected(serve):
    server = serve([], lambda name: gate.accepts_name(name, "127.0.0.1", "", False))
    for host in ("localhost", "localhost:8000", "LOCALHOST.", "127.0.0.1:80", "[::1]:8000", "[::1]"):
        assert ask(server, host=host) == 200, host
    for host in ("evil.example", "evil.example:8000", "", "localhost@evil.example", "a@localhost", "[::1", "[::2]",
                 "localhost:80.evil.example", "localhost/"):  # fmt: skip
        for path in ("/", "/health", "/ready"):
            assert ask(server, host=host, path=path) == 421, host


def test_a_silent_or_dripping_connection_is_closed(serve, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 60.0)
    server = serve([])

    async def hurry(*arguments):
        connections.HEAD_TIMEOUT_S = 0.4  # for what begins now
        await server.routes(*arguments)

    server.gate.app = hurry
    with contextlib.ExitStack() as stack:
        (idle,) = open_many(stack, server, 1, request())
        assert status(idle) == 200
        silent, half, dripping = open_many(stack, server, 3, b"")
        with contextlib.suppress(ConnectionError):
            half.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        with pytest.raises(ConnectionError):
            dripping.sendall(b"GET / HTTP/1.1\r\nX: ")
            for _ in range(6000):  # two minutes
                dripping.sendall(b"x")
                time.sleep(0.02)
        assert [status(connection) for connection in (silent, half, dripping, idle)] == [0] * 4


def test_a_body_comes_at_a_least_rate(serve, monkeypatch):
    monkeypatch.setattr(gate, "BODY_TIMEOUT_S", 0.3)
    monkeypatch.setattr(gate, "MIN_BODY_BYTES_PER_S", 1)
    server = serve([])
    with server.connect() as steady, server.connect() as slow:
        steady.sendall(request(length=100, body=b"x" * 99))  # which add a second each
        slow.sendall(request(length=100))
        start = time.monotonic()
        assert status(slow) == 408 and time.monotonic() - start < gate.REQUEST_TIMEOUT_S
        steady.sendall(b"x")
        assert status(steady) == 200


def test_slow_bodies_take_nobodys_turn(serve, monkeypatch):
    monkeypatch.setattr(gate, "MAX_IN_FLIGHT", 3)
    server = serve([])
    with contextlib.ExitStack() as stack:
        open_many(stack, server, 20, request(length=10))
        for source in (None, NEIGHBOR):
            assert [ask(server, source, path=path) for path in ("/", "/health", "/ready")] == [200] * 3


def test_a_network_has_its_share_of_the_requests_in_work(serve, monkeypatch):
    monkeypatch.setattr(gate, "MAX_IN_FLIGHT", 3)
    server = serve([])
    with contextlib.ExitStack() as stack:
        held = open_many(stack, server, 3, request("/hold"))
        wait_until(lambda: server.gate.num_in_flight == 3)
        assert [ask(server, path="/hold") for _ in range(2)] == [503] * 2
        assert ask(server, path="/health") == 200
        assert ask(server, NEIGHBOR) == 200
        server.is_held = False
        assert [status(connection) for connection in held] == [200] * 3
    assert ask(server) == 200
    wait_until(lambda: server.gate.num_in_flight == 0)


def test_bodies_of_one_network_leave_room_for_others(serve, monkeypatch):
    monkeypatch.setattr(gate, "MAX_TOTAL_BODY_BYTES", 4000)
    server = serve([])
    with contextlib.ExitStack() as stack:
        held = open_many(stack, server, 5, request(body=b"x" * 1000, length=1001))
        (refused,), *_ = select.select(held, [], [], 60)  # the last that came, in whatever order they did
        assert status(refused) == 503
        assert ask(server, NEIGHBOR, body=b"x" * 1000) == 200


def test_a_flood_of_connections_closes_its_own(serve, monkeypatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 8)
    server = serve([])
    with contextlib.ExitStack() as stack:
        (neighbor,) = open_many(stack, server, 1, source=NEIGHBOR)
        flood = open_many(stack, server, 30, b"POST / HT")
        assert ask(server, path="/health") == 200
        neighbor.sendall(request())
        assert status(neighbor) == 200
        assert len(server.server.server_state.connections) <= 8
        assert [status(connection) for connection in flood[:20]] == [0] * 20  # the oldest


def test_a_response_that_nobody_reads_is_given_up(serve, monkeypatch):
    for name in ("HEAD_TIMEOUT_S", "LINGER_S"):
        monkeypatch.setattr(connections, name, 0.3)

    async def large(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(2**26)})

    server = serve([])
    server.gate.app = large
    with server.connect() as connection:
        connection.sendall(request())
        time.sleep(0.3)
        wait_until(lambda: not server.server.server_state.connections)


def test_wrong_keys_are_braked_and_the_right_one_is_not(serve, monkeypatch):
    monkeypatch.setattr(gate, "MAX_WRONG_KEYS", 5)
    monkeypatch.setattr(gate, "WRONG_KEY_DELAY_S", 0.2)
    server = serve([KEY.encode()])
    assert [ask(server) for _ in range(9)] == [401] * 9  # no key is not a wrong one
    assert [ask(server, key=f"a-wrong-key-{n}-{KEY}") for n in range(5)] == [401] * 5
    start = time.monotonic()
    assert ask(server, key=f"{KEY}x") == 429 and time.monotonic() - start > 0.2
    assert ask(server, key=KEY) == 200  # behind a proxy all have its address
    assert ask(server, NEIGHBOR, key=f"{KEY}x") == 401


def test_an_ipv6_network_is_one_client():
    for hosts, network in (
        (["2001:db8:1:2::3", "2001:db8:1:2:ffff::"], "20010db800010002::/64"),
        (["::ffff:192.0.2.7", "192.0.2.7"], "192.0.2.7"),
        (["testclient"], "testclient"),
    ):
        for host in hosts:
            assert gate.client_network((host, 1)) == network
    assert gate.client_network(None) == ""


@pytest.mark.slow
def test_the_command_outlives_hostile_clients(index_folder, tmp_path):
    body = b'{"queries": [{"texts": ["chest"]}]}'
    search = {"path": "/search", "body": body}
    with start_server(index_folder, tmp_path / "log") as server, contextlib.ExitStack() as stack:
        assert ask(server, host="evil.example", **search) == 421
        silent = open_many(stack, server, 300)
        slow = open_many(stack, server, 64, request("/search", length=10**5) + b"{")
        flood = open_many(stack, server, 400, b"GET /health HTTP/1.1\r\nHo")
        start = time.monotonic()
        for _ in range(10):
            with server.connect() as connection:
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert status(connection) == 200
            assert ask(server, **search) == ask(server, NEIGHBOR, **search) == 200
        time.sleep(max(0.0, connections.HEAD_TIMEOUT_S + 2 - (time.monotonic() - start)))
        assert {status(connection) for connection in (*silent, *flood)} == {0}
        assert {status(connection) for connection in slow} <= {0, 408}
        assert "Traceback" not in server.log()
