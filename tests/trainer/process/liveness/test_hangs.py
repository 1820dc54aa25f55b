"""What stops answering is found within the configured seconds, named with its phase, and takes nothing with it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from distill_api.reasons import Reason
from distill_trainer.process.liveness.heartbeat import (
    Heartbeat,
    HeartbeatMonitor,
    MissedHeartbeat,
    is_alive,
    request_stack_dumps,
    stuck_ranks,
)
from distill_trainer.process.liveness.timeouts import timeouts
from tests.support.machine.clock import Clock
from tests.support.machine.leaving_out import leave_out
from tests.support.machine.processes import children, command, ranks_of, wait_until_stopped
from tests.support.machine.syscalls import needs_strace, slow_fsync
from tests.support.ranks.launched import Gang

pytestmark = pytest.mark.alone

STALL = 8
"""spec.recovery.stallTimeoutSeconds: collectives wait 5.6 s, watchdog and launcher 6.4 s."""
RECOVERY = {"stallTimeoutSeconds": STALL}


EACH_BACKEND = pytest.mark.parametrize("gang", ["gloo", "patient"], indirect=True)
"""Over gloo, and over a backend that behaves as NCCL does."""


@pytest.fixture
def gang(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Gang]:
    """A gang whose processes do not outlive the test."""
    gang = Gang(tmp_path, backend=getattr(request, "param", "gloo"))
    yield gang
    gang.end()


@EACH_BACKEND
@pytest.mark.parametrize("frozen", [0, 1])
def test_a_stopped_process_is_named_and_all_ranks_stacks_are_logged(gang: Gang, frozen: int) -> None:
    (node,) = gang.start(processes=2, plan={str(frozen): {"at": 7, "do": "freeze"}}, recovery=RECOVERY)
    gang.wait_for_commit()
    began = time.monotonic()
    code, message = node.end()
    log = node.log.read_text()

    assert time.monotonic() - began < STALL + 3
    assert (code, message.reason, message.rank) == (1, Reason.STALLED, frozen)
    assert re.search(rf"rank {frozen} sent no heartbeat for \d+ s in phase forward", message.message)
    assert message.committed_step == 5
    assert re.search(r"in misbehave\n", log), "the stopped rank's stack"
    shown = {"gloo": r".*\nTraceback(.*\n)+?.*all_reduce", "patient": r" rank in phase forward: all_reduce \d+, state"}
    assert re.search(rf"rank {1 - frozen} ERROR.*timed out waiting for another{shown[gang.backend]}", log)


STOPS_AGAIN_AND_AGAIN = """
import faulthandler, os, signal, threading, time
faulthandler.register(signal.SIGUSR1, all_threads=True)
for _ in range(4):
    threading.Thread(target=lambda: [time.sleep(0.01) for _ in range(10**6)], daemon=True).start()
def stops_here():
    os.kill(os.getpid(), signal.SIGSTOP)
while True:
    stops_here()
    time.sleep(0.001)
"""


def test_the_stacks_of_a_stopped_process_show_where_it_stopped(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", STOPS_AGAIN_AND_AGAIN], stderr=log)
    try:
        for _ in range(60):
            wait_until_stopped(process.pid, seconds=20)
            request_stack_dumps([process.pid])
        stacks = (tmp_path / "log").read_text()
        assert (stacks.count("in stops_here\n"), stacks.count("in <module>\n")) == (60, 60)
    finally:
        process.kill()
        process.wait()


@EACH_BACKEND
def test_a_hanging_thread_is_named_although_other_ranks_give_up_first(gang: Gang) -> None:
    (node,) = gang.start(processes=2, plan={"1": {"at": 7, "do": "hang"}}, recovery=RECOVERY)
    gang.wait_for_commit()
    began = time.monotonic()
    code, message = node.end()

    assert time.monotonic() - began < STALL + 3
    assert (code, message.reason, message.rank) == (1, Reason.STALLED, 1)
    assert "rank 1 made no progress for" in message.message
    assert "phase forward" in message.message
    assert message.committed_step == 5
    assert re.search(r"in misbehave\n", node.log.read_text())
    if gang.backend == "patient":  # a broadcast of the first step, and six of the seven steps
        assert message.message.endswith("rank 1 has completed all_reduce 7 and is in none, rank 0 is in all_reduce 8")


@EACH_BACKEND
def test_a_rank_that_is_aborted_for_its_device_is_the_cause(gang: Gang) -> None:
    (node,) = gang.start(processes=2, plan={"1": {"at": 7, "do": "ecc"}}, recovery=RECOVERY)
    code, message = node.end()
    assert (code, message.reason, message.rank) == (134, Reason.ACCELERATOR_FAILED, 1)
    assert message.message == "rank 1 was killed by SIGABRT after CUDA error: uncorrectable ECC error encountered"
    assert node.log.read_text().count("terminate called after throwing") == 1, "passed on, once"


@EACH_BACKEND
def test_a_stopped_process_on_another_node_is_named_by_that_node(gang: Gang) -> None:
    nodes = gang.start(nodes=2, processes=1, plan={"1": {"at": 7, "do": "freeze"}}, recovery=RECOVERY)
    _, echo = nodes[0].end()
    asked = time.monotonic()
    nodes[1].process.terminate()  # as the Job controller does once a pod has failed
    code, message = nodes[1].end()

    assert echo.reason is Reason.PEER_LOST
    assert "rank 0 timed out waiting for another rank in phase forward" in echo.message
    assert time.monotonic() - asked < 4
    assert (code, message.reason, message.rank) == (1, Reason.STALLED, 1)
    assert "in phase forward" in message.message


def test_a_rank_that_is_frozen_for_a_moment_goes_on(gang: Gang) -> None:
    (node,) = gang.start(processes=2, steps=100, recovery=RECOVERY)
    gang.wait_for_commit()
    rank = next(pid for pid in ranks_of(node.process.pid))
    os.kill(rank, signal.SIGSTOP)
    time.sleep(2)
    os.kill(rank, signal.SIGCONT)
    code, message = node.end()
    assert (code, message.outcome) == (0, "done")


@EACH_BACKEND
def test_blocked_storage_ends_the_attempt_and_its_late_writes_are_fenced(gang: Gang) -> None:
    needs_strace()
    (node,) = gang.start(processes=2, steps=4000, recovery=RECOVERY)
    gang.wait_for_commit()
    (writer,) = [
        pid for rank in ranks_of(node.process.pid) for pid in children(rank) if "checkpoint.writer" in command(pid)
    ]
    with slow_fsync(writer, "1000s"):
        time.sleep(1)
        before = gang.committed()
        code, message = node.end()
        assert (code, message.reason, message.rank) == (1, Reason.STALLED, 0)
        assert "in phase checkpoint" in message.message
        assert gang.committed() == before
        assert is_alive(writer)

        (second,) = gang.start(attempt=2, processes=2, steps=before[-1] + 40)
        assert second.end()[1].resumed_from_step == before[-1]
        after = gang.committed()
    deadline = time.monotonic() + 20
    while is_alive(writer) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(writer)
    assert gang.committed() == after


@pytest.fixture
def cable() -> Iterator[list[str]]:
    """Two network namespaces, joined by a pair of interfaces named `wire`, with addresses 10.231.7.1 and 10.231.7.2."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        leave_out("network namespaces need root and iproute2; run the tests as root to include this one")
    names = [f"distill-{os.getpid()}-{number}" for number in (0, 1)]
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("-n", names[0], "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", names[1])
        for number, name in enumerate(names):
            _ip("-n", name, "address", "add", f"10.231.7.{number + 1}/24", "dev", "wire")
            for interface in ("lo", "wire"):
                _ip("-n", name, "link", "set", interface, "up")
        yield names
    finally:
        for name in names:
            _ip("netns", "delete", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@EACH_BACKEND
def test_a_network_that_is_cut_between_two_nodes_is_noticed_on_both_sides(gang: Gang, cable: list[str]) -> None:
    nodes = gang.start(
        nodes=2,
        processes=1,
        steps=4000,
        recovery=RECOVERY,
        host="10.231.7.1",
        within=lambda number: ["ip", "netns", "exec", cable[number]],
        GLOO_SOCKET_IFNAME="wire",
    )
    gang.wait_for_commit()
    _ip("-n", cable[0], "link", "set", "wire", "down")
    began = time.monotonic()
    ends = [node.end() for node in nodes]
    committed = gang.committed()[-1]

    assert time.monotonic() - began < STALL + 3
    for rank, (code, message) in enumerate(ends):
        assert (code, message.reason) == (1, Reason.PEER_LOST)
        assert f"rank {rank} timed out waiting for another rank in phase" in message.message
        shown = {"gloo": "timed out waiting for another rank\nTraceback", "patient": "all_reduce"}
        assert shown[gang.backend] in nodes[rank].log.read_text()
    assert ends[0][1].committed_step == committed
    assert ends[0][1].step is not None
    assert ends[0][1].step - committed <= 5


def test_missed_heartbeats_count_only_while_the_launcher_is_awake(tmp_path: Path) -> None:
    clock = Clock()
    monitor = HeartbeatMonitor({0: tmp_path / "a", 1: tmp_path / "b", 2: tmp_path / "never"}, clock)
    silent, lively = Heartbeat(tmp_path / "a"), Heartbeat(tmp_path / "b")
    lively.phase("data")
    assert monitor.missed() == {}
    heard = {}
    for second in range(1, 11):
        clock.now += 1
        if second <= 4:
            silent.beat()
        silent.phase("backward")  # of a thread that still moves; alone it is no heartbeat
        lively.beat()
        heard = monitor.missed()
    assert heard == {0: MissedHeartbeat(6.0, "backward", os.getpid()), 1: MissedHeartbeat(0.0, "data", os.getpid())}
    clock.now += 3600  # the launcher itself was frozen
    assert monitor.missed()[0].seconds == 8.0


@pytest.mark.parametrize(
    ("seconds", "others_ended", "given"),
    [(479, False, False), (480, False, True), (149, True, False), (150, True, True)],
)
def test_a_silent_rank_is_given_up_sooner_when_others_have_left(
    seconds: float, others_ended: bool, given: bool
) -> None:
    assert bool(stuck_ranks({3: MissedHeartbeat(seconds, "forward", 1)}, timeouts(600), others_ended)) is given
