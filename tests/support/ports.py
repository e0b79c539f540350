"""Ports for commands in other processes that cannot choose one by themselves."""

import random
import socket
from contextlib import suppress


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nothing has, below those that connections get: none takes one before its command."""
    ports, chance = set(), random.SystemRandom()  # the workers of one run must not draw the same
    while len(ports) < count:
        port = chance.randrange(20_000, 32_768)  # above those of Ray's own processes
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            ports.add(port)
    return sorted(ports)


def free_port() -> int:
    """One such port."""
    return free_ports(1)[0]
