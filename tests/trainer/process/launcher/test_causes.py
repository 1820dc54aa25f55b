"""A rank's cause reaches log and termination message before any collective teardown, which waits for the others."""

import re
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.small_run import Attempt, Local, end_all, make_volumes
from distill_api.reasons import Reason
from distill_trainer.process.launcher.agent import gpu_variables
from distill_trainer.process.liveness.timeouts import timeouts
from tests.support.machine.processes import children, command, ranks_of
from tests.support.ranks.launched import Gang
from tests.support.ranks.patient import ABORT_SECONDS

EACH_BACKEND = pytest.mark.parametrize("gang", ["gloo", "patient"], indirect=True)
"""Over gloo, and over a backend that behaves as NCCL does."""
RECOVERY = {"stallTimeoutSeconds": 12}


@pytest.fixture
def gang(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Gang]:
    """A gang whose processes do not outlive the test."""
    gang = Gang(tmp_path, backend=getattr(request, "param", "gloo"))
    yield gang
    gang.end()


def fill(writer: int) -> None:
    """From now on this process can write to no file."""
    resource.prlimit(writer, resource.RLIMIT_FSIZE, (0, 0))


@pytest.mark.alone
@EACH_BACKEND
@pytest.mark.parametrize("alone", [0, 1])
def test_the_permanent_error_of_one_rank_is_the_gangs(gang: Gang, alone: int) -> None:
    (node,) = gang.start(processes=2, plan={str(alone): {"at": 7, "do": "permanent"}}, recovery=RECOVERY)
    code, message = node.end()
    log = node.log.read_text()
    assert (code, message.outcome, message.reason) == (78, "permanent", Reason.DATASET_INVALID)
    assert (message.rank, message.step, message.committed_step) == (alone, 6, 5)
    assert "error: DatasetInvalid: data.yaml names no val images; add val: images/val" in log.splitlines()


@pytest.mark.alone
@EACH_BACKEND
def test_a_full_volume_which_one_rank_alone_notices_is_told(gang: Gang) -> None:
    (node,) = gang.start(processes=2, steps=4000, recovery=RECOVERY)
    gang.wait_for_commit()
    main, _ = ranks_of(node.process.pid)
    (writer,) = [pid for pid in children(main) if "checkpoint.writer" in command(pid)]
    fill(writer)
    code, message = node.end()
    assert (code, message.outcome, message.reason, message.rank) == (78, "permanent", Reason.STORAGE_FULL, 0)
    assert message.committed_step == gang.committed()[-1]


@pytest.mark.alone
@pytest.mark.parametrize("gang", ["patient"], indirect=True)
def test_a_rank_that_c10ds_watchdog_kills_has_lost_a_peer(gang: Gang) -> None:
    nodes = gang.start(
        nodes=2, processes=1, plan={"1": {"at": 7, "do": "hang"}}, recovery=RECOVERY, **{ABORT_SECONDS: "2"}
    )
    code, message = nodes[0].end()
    assert (code, message.reason, message.rank) == (134, Reason.PEER_LOST, 0)
    assert "killed by SIGABRT, as PyTorch does when a peer of a collective is gone" in message.message
    assert "watchdog thread terminated with exception" in nodes[0].log.read_text()
    assert nodes[1].end()[1].reason == Reason.STALLED


def test_only_ranks_on_gpus_get_the_variables_for_them(gang: Gang) -> None:
    names = sorted(gpu_variables(600, {}))
    for gpus, told in ((False, []), (True, names)):
        (node,) = gang.start(processes=1, steps=1, gpus=gpus)
        assert node.end()[0] == 0
        found = re.search(r"of PyTorch: (.*)", node.log.read_text())
        assert found is not None
        assert [name for name in names if name in found[1]] == told


@pytest.mark.parametrize(("stall", "heartbeat"), [(600, "3600"), (4500, "4500"), (86400, "86400")])
def test_c10ds_monitor_never_acts_before_the_watchdog(stall: int, heartbeat: str) -> None:
    found = gpu_variables(stall, {"TORCH_FR_BUFFER_SIZE": "7"})
    assert found["TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC"] == heartbeat
    assert float(heartbeat) > timeouts(stall).watchdog
    assert found["TORCH_FR_BUFFER_SIZE"] == "7", "what the container says holds"


def started(local: Local, name: str) -> Attempt:
    return local.start(name, [sys.executable, "-m", "tests.support.ranks.fakes.patient_trainer"])


def test_the_trainer_itself_tells_its_cause_and_then_trains_to_the_end(tmp_path: Path) -> None:
    make_volumes(tmp_path, images=16)
    training = {"batch": 8, "nbs": 8, "imgsz": 64, "optimizer": "SGD", "workers": 0, "plots": False}
    forever = Local(tmp_path, tmp_path / "results", {"training": training | {"epochs": 500}})
    try:
        first, deadline = started(forever, "first"), time.monotonic() + 150
        while not (forever.committed() and first.writers()):
            assert first.process.poll() is None, first.log_text()
            assert time.monotonic() < deadline, first.log_text()
            time.sleep(0.05)
        fill(first.writers()[0].pid)
        assert first.process.wait(60) == 78, first.log_text()
        told = first.message()
        assert told is not None
        assert (told.reason, told.rank) == (Reason.STORAGE_FULL, 0)

        short = Local(tmp_path, tmp_path / "again", {"training": training | {"epochs": 2}})
        second = started(short, "second")
        assert second.process.wait(150) == 0, second.log_text()
        assert short.committed()[-1] == 4
    finally:
        end_all()
