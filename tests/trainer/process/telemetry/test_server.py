"""The server of a rank: its pages, its port, and who may not keep it."""

import json
import multiprocessing
import socket
import time
import urllib.error
import urllib.request

import pytest

from distill_trainer.process.telemetry.server import StatusServer


def test_the_server_serves_its_pages_and_names_them_on_a_wrong_path() -> None:
    server = StatusServer(0, {"/status": ("application/json", lambda: b'{"a": 1}')})
    try:
        answer = urllib.request.urlopen(f"http://127.0.0.1:{server.port}/status?x=1")
        assert (answer.headers["Content-Type"], json.load(answer)) == ("application/json", {"a": 1})
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/nothing")
    finally:
        server.close()


def test_a_taken_port_is_replaced_by_a_free_one() -> None:
    first = StatusServer(0, {"/healthz": ("text/plain", lambda: b"ok")})
    second = StatusServer(first.port, {"/healthz": ("text/plain", lambda: b"ok")})
    try:
        assert second.port != first.port
        assert urllib.request.urlopen(f"http://127.0.0.1:{second.port}/healthz").read() == b"ok"
    finally:
        second.close()
        first.close()


def test_a_run_on_one_machine_is_not_served_to_the_network() -> None:
    """Nor does it take the port from another address of the machine."""
    local = StatusServer(0, {"/healthz": ("text/plain", lambda: b"ok")}, "127.0.0.1")
    try:
        assert urllib.request.urlopen(f"http://127.0.0.1:{local.port}/healthz").read() == b"ok"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", local.port), 1)
    finally:
        local.close()


def test_a_forked_data_loading_process_does_not_keep_the_port() -> None:
    server = StatusServer(0, {"/healthz": ("text/plain", lambda: b"ok")})
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,))
    child.start()
    try:
        server.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), 1)
    finally:
        child.kill()
        child.join()
