"""What `distill` draws in a terminal, and what it asks there: a real pty and a real API server."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.client.conftest import Desk, started, write_results
from tests.support.apiserver.api import wait_for
from tests.support.apiserver.kubelet import KubeletServer
from tests.support.cli.terminal import ALTERNATE, BACK, Terminal, terminal
from tests.support.machine.python import command, environment

CTRL_C = "\x03"
TEMPLATE = {"claimTemplate": {"resources": {"requests": {"storage": "1Gi"}}}}


@contextmanager
def distill(desk: Desk, *arguments: str) -> Iterator[Terminal]:
    """The command in a terminal, in the desk's folder."""
    options = ("-n", desk.namespace, "--kubeconfig", str(desk.kubeconfig))
    with terminal(command("distill_cli.main", *arguments, *options), environment(), desk.folder) as shown:
        yield shown


def event(desk: Desk, message: str) -> None:
    made: dict[str, Any] = {"apiVersion": "v1", "kind": "Event", "metadata": {"generateName": "e"}, "type": "Normal"}
    about = {"kind": "DistillJob", "name": "tiny", "namespace": desk.namespace}
    desk.api.create({**made, "involvedObject": about, "reason": "Told", "message": message}, desk.namespace)


@pytest.mark.parametrize(("phase", "code"), [("Succeeded", 0), ("Failed", 8)])
def test_status_is_redrawn_to_the_end_and_then_stays(desk: Desk, phase: str, code: int) -> None:
    started(desk)
    with distill(desk, "status", "tiny", "-w") as shown:
        shown.expect("tiny  Running")
        shown.expect("epoch 2/4")
        desk.tell("tiny", {"progress": {"epoch": 3, "epochs": 4, "step": 150, "steps": 200}})
        shown.expect("epoch 3/4")
        desk.tell("tiny", {"phase": phase})
        assert shown.end() == code
    own, left = shown.sent.partition(BACK)[::2]
    assert ALTERNATE in own
    assert f"tiny  {phase}" in Terminal.plain(left), "what was on the screen stays after it"


def test_a_job_that_is_applied_is_shown_to_its_end(desk: Desk) -> None:
    with distill(desk, "apply", desk.file(), "--watch") as shown:
        shown.expect("tiny created")
        shown.expect("tiny  Pending")
        desk.tell("tiny", {"phase": "Failed"})
        assert shown.end() == 8
    assert "tiny  Failed" in Terminal.plain(shown.sent.partition(BACK)[2])


def test_the_list_follows_until_ctrl_c(desk: Desk) -> None:
    with distill(desk, "list", "-w") as shown:
        for _ in range(2):  # drawn again
            shown.expect(f"no DistillJobs in namespace {desk.namespace}")
        assert "NAME" not in shown.text, "no empty table hides it"
        desk.ok("apply", desk.file())
        shown.expect("tiny  Pending")
        desk.tell("tiny", {"phase": "Running"})
        shown.expect("tiny  Running")
        shown.type(CTRL_C)
        assert shown.end() == 130
    assert "Traceback" not in shown.text


def test_new_events_are_printed_once_until_ctrl_c(desk: Desk) -> None:
    desk.ok("apply", desk.file())
    event(desk, "the first")
    with distill(desk, "events", "tiny", "-w") as shown:
        shown.expect("the first")
        event(desk, "the second")
        shown.expect("the second")
        shown.type(CTRL_C)
        assert shown.end() == 130
    assert (shown.text.count("the first"), shown.text.count("the second")) == (1, 1)


def test_a_download_has_a_bar_with_the_file_and_what_has_come(desk: Desk, gang: KubeletServer) -> None:
    write_results(gang)
    with distill(desk, "download", "tiny") as shown:
        assert shown.end() == 0
    shown.expect("weights/best.pt ━")
    shown.expect("179.2/179.2 kB")
    shown.expect("3 files in tiny")
    assert (desk.folder / "tiny/weights/best.pt").exists()


@pytest.mark.parametrize(("answer", "code", "left"), [("n", 1, ["mine"]), ("y", 0, [])])
def test_a_deletion_that_loses_something_is_asked_for(desk: Desk, answer: str, code: int, left: list[str]) -> None:
    volumes = {"checkpoints": TEMPLATE, "data": {"claimName": "digits"}, "models": {"claimName": "runs"}}
    desk.ok("apply", desk.file("mine", volumes=volumes))
    with distill(desk, "delete", "mine") as shown:
        shown.expect("mine: deletes the claims that were made for it")
        shown.expect("delete mine? [y/N]: ")
        shown.type(f"{answer}\n")
        assert shown.end() == code
    wait_for(lambda: [job.name for job in desk.client.list()] == left)
