"""`python -m distill_operator` as real processes against an API that is HTTP alone: readiness, logs, fail-over."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distill_api.generate.crd import crd
from distill_local.trainer_process import free_port
from distill_operator.controller.leadership.election import Times
from tests.support.operator.fakeapi import FakeApi
from tests.support.operator.samples import job

READY_SECONDS = 20.0


@pytest.fixture
def api() -> Iterator[FakeApi]:
    api = FakeApi()
    api.put("customresourcedefinitions", crd())
    with api.served() as api:
        yield api


class Process:
    """An operator that says in the API who it is."""

    def __init__(self, api: FakeApi, name: str, folder: Path) -> None:
        self.name, self._log = name, folder / f"{name}.log"
        self._health, self._metrics = free_port(), free_port()
        environment = {
            **os.environ,
            "KUBECONFIG": str(api.kubeconfig(folder, name)),
            "DEFAULT_TRAINER_IMAGE": "trainer:test",
            "OPERATOR_HEALTH_PORT": str(self._health),
            "OPERATOR_METRICS_PORT": str(self._metrics),
            "LOG_FORMAT": "json",
            "LEASE_NAME": "operator",
            "LEASE_NAMESPACE": "system",
            "POD_NAME": name,
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "distill_operator"], env=environment, stderr=log)

    def probe(self, path: str = "/readyz") -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health}{path}", timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def ready(self) -> bool:
        assert self.process.poll() is None, self._log.read_text()
        return self.probe()[0] == 200

    def leads(self) -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics}/metrics", timeout=2) as answer:
            return "distill_operator_leads 1.0" in answer.read().decode()

    def text(self) -> str:
        return self._log.read_text()

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def end(self, number: signal.Signals) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=30)


@pytest.fixture
def start(api: FakeApi, tmp_path: Path) -> Iterator[Callable[[str], Process]]:
    started: list[Process] = []

    def start(name: str) -> Process:
        started.append(Process(api, name, tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.end(signal.SIGKILL)


def wait_for(what: Callable[[], bool], seconds: float) -> float:
    """Seconds until it holds."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds
        time.sleep(0.05)
    return time.monotonic() - began


def submit(api: FakeApi, name: str) -> None:
    """A job, whose first pass writes its status."""
    document = job().to_wire()
    del document["status"]
    api.put("distilljobs", {**document, "metadata": {"name": name, "namespace": "team", "generation": 1}}, "ADDED")


def writers(api: FakeApi, name: str) -> set[str]:
    """Who has written the status of this job."""
    path = f"PUT /apis/distilljob.dev/v1alpha1/namespaces/team/distilljobs/{name}/status"
    return {client for client, writes in api.writes.items() if path in writes}


def test_an_operator_is_ready_when_it_has_every_first_list(api: FakeApi, start: Callable[[str], Process]) -> None:
    api.held = {"pods"}
    process = start("a")
    wait_for(lambda: process.probe() == (503, "waiting for the first lists of /api/v1/pods\n"), READY_SECONDS)
    assert process.probe("/healthz")[0] == 200
    api.held = set()
    wait_for(process.ready, READY_SECONDS)


def test_every_line_of_the_log_is_json_and_names_its_job(api: FakeApi, start: Callable[[str], Process]) -> None:
    process = start("a")
    wait_for(process.ready, READY_SECONDS)
    for claim in ("runs", "digits"):
        found = {"spec": {"accessModes": ["ReadWriteMany"]}, "status": {"phase": "Bound"}}
        api.put("persistentvolumeclaims", {"metadata": {"name": claim, "namespace": "team"}, **found})
    submit(api, "tiny")
    wait_for(lambda: "jobs" in {path.rpartition("/")[2] for path in api.writes["a"]}, 10)
    assert process.end(signal.SIGTERM) == 0
    lines = process.log()
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert [line["message"] for line in lines if line["level"] != "INFO"] == []
    about = {(line["message"], line["attempt"]) for line in lines if line.get("job") == "team/tiny"}
    assert about == {("team/tiny: Starting, attempt 1", 1)}


def test_spoiled_lists_and_watches_do_not_end_the_operator(api: FakeApi, start: Callable[[str], Process]) -> None:
    process = start("a")
    wait_for(process.ready, READY_SECONDS)
    api.spoiled["distilljobs"] = [b"<html>Sign in</html>", b'{"items": [', b"[]"]
    error = b'{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcd is away"}}\n'
    api.last_lines["distilljobs"] = [b"<html>\n", error, b'{"type":"ADDED","object":{"meta', b""]
    wait_for(lambda: not api.spoiled["distilljobs"] and not api.last_lines["distilljobs"], 30)
    submit(api, "tiny")
    wait_for(lambda: bool(writers(api, "tiny")), 10)
    assert process.process.poll() is None
    assert "Traceback" not in process.text()


def test_a_lost_event_is_made_up_for_when_the_watch_ends(api: FakeApi, start: Callable[[str], Process]) -> None:
    process = start("a")
    wait_for(process.ready, READY_SECONDS)
    api.loses_events = True
    submit(api, "tiny")
    version = api.get("distilljobs", "team", "tiny")["metadata"]["resourceVersion"]
    time.sleep(0.5)
    assert not writers(api, "tiny")
    later = {"type": "BOOKMARK", "object": {"kind": "DistillJob", "metadata": {"resourceVersion": version}}}
    api.last_lines["distilljobs"] = [json.dumps(later).encode() + b"\n"]
    wait_for(lambda: bool(writers(api, "tiny")), 10)


def test_one_of_two_acts_and_the_other_takes_over(api: FakeApi, start: Callable[[str], Process]) -> None:
    a = start("a")
    wait_for(lambda: a.ready() and a.leads(), READY_SECONDS)
    b = start("b")
    wait_for(b.ready, READY_SECONDS)
    submit(api, "first")
    wait_for(lambda: bool(writers(api, "first")), 10)
    assert not b.leads()

    assert a.end(signal.SIGTERM) == 0
    times, released = Times(), wait_for(b.leads, 10)
    assert released < times.retry + 1.0, "the lease was released"
    submit(api, "second")
    wait_for(lambda: bool(writers(api, "second")), 10)

    c = start("c")
    wait_for(c.ready, READY_SECONDS)
    b.end(signal.SIGKILL)
    submit(api, "third")
    killed = wait_for(lambda: bool(writers(api, "third")), times.lease + times.retry + 5.0)
    assert [writers(api, name) for name in ("first", "second", "third")] == [{"a"}, {"b"}, {"c"}]
    print(f"fail-over: {released:.1f} s after SIGTERM, {killed:.1f} s after SIGKILL")
