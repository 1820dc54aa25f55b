"""The rendezvous endpoint: node 0's address, which the cluster's DNS resolves only after that pod exists."""

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from distill_api.errors import Permanent, Retryable
from distill_api.reasons import Reason

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


@dataclass(frozen=True)
class Endpoint:
    """Address of the rendezvous store on node 0."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse host:port. Raises Permanent."""
        host, _, port = text.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise Permanent(Reason.CONFIG_INVALID, f"rendezvous is {text!r}; it must be host:port")
        return cls(host, int(port))


def resolves(host: str) -> bool:
    """Whether the name resolves to an address now."""
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False


def wait_for_name(
    host: str,
    timeout: float,
    *,
    resolved: Callable[[str], bool] = resolves,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until `host` resolves: DNS records of a headless Service's pods appear late.

    Raises Retryable after `timeout` seconds.
    """
    deadline = clock() + timeout
    pause = _FIRST_PAUSE
    while not resolved(host):
        left = deadline - clock()
        if left <= 0:
            raise Retryable(
                Reason.PEER_LOST,
                f"{host} (node 0) did not resolve within {timeout:.0f} s; check that its pod is scheduled and that "
                "the cluster's DNS works",
            )
        sleep(min(pause, left))
        pause = min(_LONGEST_PAUSE, pause * 1.5)
