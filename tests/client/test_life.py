"""A job's life with the real operator, led by `distill`."""

from pathlib import Path
from threading import Thread

from distill_api.constants import Phase
from testcluster import ControlPlane
from tests.client.conftest import Desk, Ended
from tests.support.apiserver.team import RESULT, Team


def test_apply_restart_why_and_result_of_a_job(plane: ControlPlane, team: Team, tmp_path: Path) -> None:
    desk = Desk(plane.kubeconfig, team.ns, team.api, tmp_path)
    assert desk.ok("apply", desk.file()).endswith("tiny created\n")
    team.reaches(Phase.STARTING)
    assert "The attempt is starting.  PodsStarting" in desk.ok("why", "tiny")
    team.train(1, step=60, committed=50)
    assert "step 60/200" in "".join(desk.ok("status", "tiny").split("at "))

    ended: list[Ended] = []
    restart = Thread(target=lambda: ended.append(desk.distill("restart", "tiny", "--timeout", "60")))
    restart.start()
    team.stop_pods(1, committed=60)
    restart.join(60)
    assert [line.partition(" ")[2] for line in ended[0].output.splitlines()] == [
        "commits a checkpoint and stops",
        "resumes from step 60",
    ]
    team.train(2, step=90, committed=80, resumed=60)
    said = desk.ok("why", "tiny")
    assert "The job is training." in said
    assert "SuspendedByUser" in said
    assert "It was not charged to a budget." in said
    assert desk.client.get("tiny").status.failures == 0

    team.finish(2)
    assert desk.client.wait("tiny", timeout=60).phase == "Succeeded"
    assert desk.client.result("tiny") == RESULT
    assert desk.distill("status", "tiny", "-w").code == 0
    assert "AttemptCreated" in desk.ok("events", "tiny")
    assert "GPU-hours" not in desk.ok("cost", "tiny").split("UNIT")[1].splitlines()[1], "it trains on CPUs"
