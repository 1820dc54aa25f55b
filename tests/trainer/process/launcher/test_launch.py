"""The container's entry point: real launchers, real ranks over gloo, real signals."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from distill_api.constants import RESERVED_ENV, Env
from distill_api.errors import Permanent
from distill_api.pod.report import TerminationMessage
from distill_api.reasons import Reason
from distill_trainer.process.launcher import launch
from distill_trainer.process.machine.cpus import available_cpus
from distill_trainer.process.rank.files import read_run_config
from tests.support.machine.processes import children, ranks_of
from tests.support.ranks.launched import Gang

EACH_BACKEND = pytest.mark.parametrize("gang", ["gloo", "patient"], indirect=True)
"""Over gloo, and over a backend that behaves as NCCL does."""


@pytest.fixture
def gang(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Gang]:
    """A gang whose processes do not outlive the test."""
    gang = Gang(tmp_path, backend=getattr(request, "param", "gloo"))
    yield gang
    gang.end()


@EACH_BACKEND
def test_done_on_two_nodes_is_exit_0_with_a_result_from_rank_0_alone(gang: Gang) -> None:
    first, second = (node.end() for node in gang.start(nodes=2, processes=1, steps=10))

    assert (first[0], second[0]) == (0, 0)
    assert first[1].outcome == second[1].outcome == "done"
    assert first[1].result is not None
    assert second[1].result is None
    assert (first[1].step, first[1].committed_step, first[1].resumed_from_step) == (10, 10, 0)


def test_a_rank_gets_torchruns_variables_and_not_the_containers(gang: Gang) -> None:
    """A ConfigMap that envFrom names may have anything in it."""
    of_the_operator = {Env.RUN, Env.NODE_RANK, Env.COMMITTED_STEP, Env.PARENT}
    names = RESERVED_ENV - of_the_operator | {"TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE"}
    (node,) = gang.start(processes=2, steps=5, **dict.fromkeys(names, "7"))
    assert node.end()[0] == 0


@EACH_BACKEND
def test_sigterm_to_one_node_stops_all_ranks_at_a_step_that_is_resumed(
    gang: Gang,
) -> None:
    nodes = gang.start(nodes=2, processes=1, steps=4000)
    gang.wait_for_commit()
    nodes[1].process.send_signal(signal.SIGTERM)
    (code, message), (other_code, other) = (node.end() for node in nodes)

    assert (code, other_code) == (143, 143)
    assert message.outcome == other.outcome == "stopped"
    assert message.step == other.step == message.committed_step == gang.committed()[-1]

    assert message.step is not None
    code, resumed = gang.start(attempt=2, steps=message.step + 5)[0].end()
    assert (code, resumed.resumed_from_step) == (0, message.step)


@EACH_BACKEND
def test_two_ranks_of_a_node_leave_together_with_143(gang: Gang) -> None:
    (node,) = gang.start(processes=2, steps=4000)
    gang.wait_for_commit()
    node.process.send_signal(signal.SIGTERM)
    code, message = node.end()

    assert code == 143
    assert message.reason is Reason.STOPPED
    assert message.committed_step == message.step


@EACH_BACKEND
def test_a_killed_rank_is_the_cause_and_its_peers_are_the_echo(gang: Gang) -> None:
    nodes = gang.start(nodes=2, processes=1, plan={"1": {"at": 12, "do": "sigkill"}})
    code, message = nodes[1].end()
    if gang.backend == "patient":  # nothing tells its rank but the Job controller, which deletes the pod
        nodes[0].process.terminate()
    echo_code, echo = nodes[0].end()

    assert code == 137
    assert message.reason is Reason.PROCESS_KILLED
    assert (message.rank, message.committed_step) == (1, 10)
    assert echo_code == 1
    assert echo.reason is Reason.PEER_LOST
    assert {"gloo": "lost connection to a peer", "patient": "another rank is gone"}[gang.backend] in echo.message


@EACH_BACKEND
def test_a_killed_rank_beside_rank_0_on_one_node_is_blamed(gang: Gang) -> None:
    (node,) = gang.start(processes=2, plan={"1": {"at": 12, "do": "sigkill"}})
    code, message = node.end()

    assert (code, message.rank, message.reason) == (137, 1, Reason.PROCESS_KILLED)
    assert message.progress is not None


@EACH_BACKEND
def test_a_permanent_error_is_exit_78_and_one_line_without_a_traceback(gang: Gang) -> None:
    (node,) = gang.start(processes=2, plan={"0": {"at": 1, "do": "permanent"}, "1": {"at": 1, "do": "permanent"}})
    code, message = node.end()
    log = node.log.read_text()

    assert code == 78
    assert (message.outcome, message.reason) == ("permanent", Reason.DATASET_INVALID)
    assert "error: DatasetInvalid: data.yaml names no val images; add val: images/val" in log.splitlines()
    assert "Traceback" not in log


@EACH_BACKEND
def test_an_unexpected_error_is_reported_and_logged_with_its_traceback(gang: Gang) -> None:
    (node,) = gang.start(processes=2, plan={"1": {"at": 3, "do": "raise"}})
    code, message = node.end()

    assert (code, message.reason, message.rank) == (1, Reason.TRAINER_ERROR, 1)
    assert message.message == "ValueError: something nobody has foreseen"
    assert "Traceback" in node.log.read_text()


def test_a_rank_that_leaves_without_a_report_is_named(gang: Gang) -> None:
    (node,) = gang.start(processes=1, plan={"0": {"at": 3, "do": "exit"}})
    code, message = node.end()

    assert (code, message.reason) == (5, Reason.TRAINER_ERROR)
    assert "exit code 5" in message.message


@pytest.mark.alone
@EACH_BACKEND
def test_a_hanging_rank_ends_the_attempt_as_stalled_with_its_phase(gang: Gang) -> None:
    (node,) = gang.start(processes=1, plan={"0": {"at": 7, "do": "hang"}}, recovery={"stallTimeoutSeconds": 8})
    code, message = node.end(90)

    assert (code, message.reason) == (1, Reason.STALLED)
    assert "phase forward" in message.message
    assert "misbehave" in node.log.read_text()
    assert message.committed_step == 5


@pytest.mark.alone
def test_sigterm_while_the_nodes_look_for_each_other_is_answered_at_once(gang: Gang) -> None:
    (node,) = gang.start(nodes=2, processes=1, only=range(1))
    time.sleep(6)
    asked = time.monotonic()
    node.process.send_signal(signal.SIGTERM)
    code, message = node.end()

    assert (code, message.outcome) == (143, "stopped")
    assert time.monotonic() - asked < 2


@pytest.mark.alone
def test_sigterm_in_the_midst_of_the_imports_is_answered_at_once(gang: Gang) -> None:
    (node,) = gang.start(processes=1, FAKE_IMPORTS="tests.support.ranks.fakes.slow_import")
    while "importing" not in node.log.read_text():
        time.sleep(0.1)
    asked = time.monotonic()
    node.process.send_signal(signal.SIGTERM)
    code, message = node.end()

    assert (code, message.outcome, message.attempt) == (143, "stopped", 1)
    assert time.monotonic() - asked < 2


def test_a_module_that_the_image_lacks_is_reported_by_name(gang: Gang) -> None:
    (node,) = gang.start(processes=1, FAKE_IMPORTS="there_is_no_such_module")
    code, message = node.end()

    assert (code, message.reason, message.rank) == (1, Reason.TRAINER_ERROR, 0)
    assert message.message == "ModuleNotFoundError: No module named 'there_is_no_such_module'"
    assert "Traceback" in node.log.read_text()


@pytest.mark.alone
@EACH_BACKEND
def test_a_rank_that_waits_for_one_that_is_dead_leaves_at_once(gang: Gang) -> None:
    began = time.monotonic()
    (node,) = gang.start(processes=2, plan={"1": {"at": 0, "do": "sigkill"}})
    code, message = node.end()

    assert (code, message.rank, message.reason) == (137, 1, Reason.PROCESS_KILLED)
    assert time.monotonic() - began < 20, "torchrun would wait for 30 s"


def test_ranks_share_the_cpus_that_the_container_may_use(gang: Gang) -> None:
    unset = {"OMP_NUM_THREADS": "", "MKL_NUM_THREADS": ""}
    for processes in (1, available_cpus()):
        (node,) = gang.start(processes=processes, steps=1, FAKE_IMPORTS="ultralytics", **unset)
        assert node.end()[0] == 0
        assert f"computes with {available_cpus() // processes} threads" in node.log.read_text()


def test_ranks_can_use_cuda_although_a_library_looked_for_devices_before(gang: Gang) -> None:
    imports = "tests.support.ranks.fakes.looks_for_gpus"
    (node,) = gang.start(processes=1, steps=1, FAKE_IMPORTS=imports, CUDA_VISIBLE_DEVICES="0,1")
    assert node.end()[0] == 0
    assert "may use CUDA: True, devices 0,1" in node.log.read_text()


def test_ranks_are_the_launchers_children_and_lead_groups_of_their_own(gang: Gang) -> None:
    (node,) = gang.start(processes=2, steps=4000)
    gang.wait_for_commit()
    ranks = ranks_of(node.process.pid)

    assert len(ranks) == 2
    assert [os.getpgid(rank) for rank in ranks] == ranks
    assert sorted(children(node.process.pid)) == sorted(ranks), "the zygote has ended"


def test_a_peer_that_never_comes_ends_the_wait_with_a_clear_message(gang: Gang) -> None:
    (node,) = gang.start(nodes=2, processes=1, only=range(1), recovery={"schedulingTimeoutSeconds": 3})
    code, message = node.end()

    assert (code, message.reason) == (1, Reason.PEER_LOST)
    assert "rendezvous of 2 nodes at 127.0.0.1" in message.message


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "DISTILL_RUN is not set"),
        ({"DISTILL_RUN": '{"job": "x"}'}, "not a valid RunConfig: uid: is missing; attempt: is missing"),
    ],
)
def test_a_missing_or_wrong_configuration_is_exit_78_and_one_line(environ: dict[str, str], said: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "distill_trainer"], env={**os.environ, **environ}, capture_output=True, text=True
    )

    assert ended.returncode == 78
    assert ended.stderr.startswith("error: ConfigInvalid: ")
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_field_that_only_a_newer_trainer_knows_waits_for_a_correction() -> None:
    spec = {"student": {"model": "s.yaml"}, "dataset": {"config": "d.yaml"}, "training": {"swa": True}}
    volumes = {"checkpoints": {"claimName": "c"}, "data": {"claimName": "d"}}
    run = {"job": "x", "uid": "u", "attempt": 1, "nodes": 1, "rendezvous": "h:1", "spec": {**spec, "volumes": volumes}}
    with pytest.raises(Permanent, match=r"spec\.training\.swa: unknown field") as refused:
        read_run_config({"DISTILL_RUN": json.dumps(run)})
    assert refused.value.reason == Reason.TRAINER_TOO_OLD


@pytest.mark.usefixtures("own_log")
def test_a_mistake_in_the_configuration_reaches_the_termination_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "termination-log"
    place.touch()
    monkeypatch.setattr(launch, "DEFAULT_TERMINATION", place)
    monkeypatch.setenv("DISTILL_RUN", '{"job": "x", "attempt": 3}')

    assert launch.main(lambda: pytest.fail("no rank is started"), []) == 78
    message = TerminationMessage.model_validate_json(place.read_text())
    assert (message.outcome, message.reason, message.attempt) == ("permanent", Reason.CONFIG_INVALID, 3)
    assert "uid: is missing" in message.message


@pytest.mark.alone
@EACH_BACKEND
def test_a_gang_that_hangs_and_is_killed_after_its_grace_period_has_failed(gang: Gang) -> None:
    (node,) = gang.start(
        processes=1, plan={"0": {"at": 7, "do": "freeze"}}, recovery={"gracePeriodSeconds": 10}, steps=4000
    )
    gang.wait_for_commit()
    time.sleep(1)
    node.process.send_signal(signal.SIGTERM)
    code, message = node.end()

    assert (code, message.outcome, message.reason) == (137, "failed", Reason.PROCESS_KILLED)
    assert "did not commit its checkpoint within the grace period" in message.message
    assert message.committed_step == 5


def test_each_rank_serves_metrics_and_status_while_it_trains(gang: Gang) -> None:
    (node,) = gang.start(processes=2, steps=4000)
    gang.wait_for_commit(above=5)  # the rank itself hears of a commit a moment after it is on the volume
    port = re.search(r"rank 0 INFO.*serving metrics and status on port (\d+)", node.log.read_text())
    assert port is not None
    status = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/status"))
    metrics = urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/metrics").read().decode()

    assert (status["job"], status["rank"], status["state"]) == ("fake", 0, "training")
    assert status["progress"]["committedStep"] >= 5
    assert re.search(r"^distill_steps_total [1-9]", metrics, re.MULTILINE)
    assert re.search(r"^distill_last_checkpoint_step [1-9]", metrics, re.MULTILINE)
