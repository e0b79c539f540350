"""Connections of the API: each has a deadline in every state, and there are never too many.

uvicorn closes a connection that is idle after a response, but never one that sends nothing or half a request. Its
`limit_concurrency` counts such connections and then answers nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from medclip.serve.gate import REQUEST_TIMEOUT_S, client_network

HEAD_TIMEOUT_S = 10.0  # from the connection, or the last response, to the end of a request's headers
MAX_CONNECTIONS = 512  # of a process: half of the files that a system usually lets it open
LINGER_S = 20.0  # for what a slow reader has not read yet


class Connection(H11Protocol):
    """A connection of uvicorn's, closed when it is late or when there are too many.

    Over `MAX_CONNECTIONS` the network with the most connections loses the one that has waited longest for its client.
    So a flood closes its own connections, and a proxy, from which all come, may have as many as fit.
    """

    network = ""
    is_reading = True
    """Whether the client's turn has not ended: the request, or its body, is not complete."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.network = client_network(self.client)
        self._state: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._watch()
        if len(self.connections) > MAX_CONNECTIONS:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def _watch(self) -> None:
        """Set the deadline of a new state. Bytes alone do not move it: they may come one a second."""
        is_idle = self.cycle is None or self.cycle.response_complete
        self.is_reading = is_idle or self.cycle.more_body
        if (state := (self.cycle, is_idle)) == self._state:
            return
        self._state, self._since = state, time.monotonic()  # uvloop's stands still while many connect
        if self._timer is not None:
            self._timer.cancel()
        # the gate ends a request; what remains after that is a response that nobody reads
        timeout = HEAD_TIMEOUT_S if is_idle else REQUEST_TIMEOUT_S + LINGER_S
        self._timer = self.loop.call_later(timeout, self._expire)

    def _expire(self) -> None:
        self.transport.close()  # once all is written, which may be never
        self._timer = self.loop.call_later(LINGER_S, self.transport.abort)

    def _make_room(self) -> None:
        others = [other for other in self.connections if isinstance(other, Connection) and other is not self]
        num_connections = Counter(other.network for other in others)

        def rank(other: Connection) -> tuple[int, bool, float]:
            # of requests in work, which the gate bounds, the newest: an old one is nearly done
            return num_connections[other.network], other.is_reading, -other._since if other.is_reading else other._since

        victim = max(others, key=rank)
        self.connections.discard(victim)  # before its turn in the loop comes, others may be accepted
        victim.transport.abort()
