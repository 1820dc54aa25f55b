"""What kstatus computes from a job in every phase; `kstatus` has its documented rules, written by ourselves."""

from typing import Any

import pytest

from distill_api.constants import ConditionType, Phase
from distill_api.reasons import Reason
from distill_api.status import Condition, DistillJobStatus
from distill_operator.plan.plan import make_plan
from tests.support.operator.cluster import Cluster
from tests.support.operator.samples import NOW, SETTINGS, at, closed, job, observed, status
from tests.support.operator.world import VOLUMES

KINDS = (ConditionType.RECONCILING, ConditionType.STALLED)


def kstatus(generation: int, status: dict[str, Any], deleting: bool = False) -> str:
    """The status of a custom resource by kstatus' rules, in their order: deletion, the observed generation, the first
    of Reconciling and Stalled that is True, Ready; and Current if none of them says anything.
    """
    if deleting:
        return "Terminating"
    if status.get("observedGeneration", generation) != generation:
        return "InProgress"
    for condition in status.get("conditions", ()):
        if condition["status"] == "True" and condition["type"] in KINDS:
            return "InProgress" if condition["type"] == "Reconciling" else "Failed"
    ready = [condition for condition in status.get("conditions", ()) if condition["type"] == "Ready"]
    return "Current" if all(condition["status"] == "True" for condition in ready) else "InProgress"


def of(cluster: Cluster) -> str:
    return kstatus(1, cluster.dj.status.to_wire())


def kinds(found: DistillJobStatus) -> list[tuple[str, str]]:
    return [(c.type, c.status) for c in found.conditions if c.type in KINDS]


def until(cluster: Cluster, phase: Phase, *steps: str) -> Cluster:
    for _ in range(60):
        if cluster.dj.status.phase == phase:
            return cluster
        for step in steps:
            cluster.step_world(step)
    raise AssertionError(f"{phase} was not reached: {cluster.dj.status}")


ALIVE = ("operate", "controllers", "kubelets", "train", "operate")


def pending() -> Cluster:
    cluster = Cluster(dj=job(volumes={**VOLUMES, "data": {"claimName": "missing"}}))
    cluster.step_world("operate")
    return cluster


def queued() -> Cluster:
    cluster = until(Cluster(), Phase.STARTING, "operate")
    cluster.fault("queue_evicts", 0)
    cluster.dj = cluster.dj.model_copy(update={"status": unadmitted(cluster.dj.status)})
    return until(cluster, Phase.QUEUED, "operate")


def unadmitted(found: DistillJobStatus) -> DistillJobStatus:
    newest = found.attempts[-1].model_copy(update={"admitted_at": None})
    return found.model_copy(update={"attempts": [newest]})


def running() -> Cluster:
    return until(Cluster(), Phase.RUNNING, *ALIVE)


def recovering() -> Cluster:
    cluster = running()
    cluster.fault("kill", 1)
    return until(cluster, Phase.RECOVERING, "operate")


def suspended() -> Cluster:
    cluster = running()
    cluster.suspend(True)
    return until(cluster, Phase.SUSPENDED, "operate", "controllers", "kubelets")


def failed() -> Cluster:
    cluster = running()
    cluster.fault("mistake", 1)
    return until(cluster, Phase.FAILED, "operate", "controllers", "kubelets")


PHASES = {
    Phase.PENDING: (pending, "InProgress"),
    Phase.QUEUED: (queued, "InProgress"),
    Phase.STARTING: (lambda: until(Cluster(), Phase.STARTING, "operate"), "InProgress"),
    Phase.RUNNING: (running, "InProgress"),
    Phase.RECOVERING: (recovering, "InProgress"),
    Phase.SUSPENDED: (suspended, "Current"),
    Phase.SUCCEEDED: (lambda: until(Cluster(), Phase.SUCCEEDED, *ALIVE), "Current"),
    Phase.FAILED: (failed, "Failed"),
}


def test_every_phase_is_tried() -> None:
    assert set(PHASES) == set(Phase)


@pytest.mark.parametrize("phase", PHASES)
def test_kstatus_of_a_job_in_every_phase(phase: Phase) -> None:
    reach, expected = PHASES[phase]
    cluster = reach()
    assert (cluster.dj.status.phase, of(cluster)) == (phase, expected)
    present = {"InProgress": [("Reconciling", "True")], "Failed": [("Stalled", "True")], "Current": []}[expected]
    assert kinds(cluster.dj.status) == present, "abnormal conditions are there only while they hold"


def test_a_job_whose_spec_was_changed_is_in_progress_until_it_is_seen() -> None:
    assert kstatus(2, suspended().dj.status.to_wire()) == "InProgress"
    assert kstatus(1, {"observedGeneration": -1, "conditions": []}) == "InProgress", "as the CRD's default says"


def test_a_job_that_is_being_suspended_is_in_progress() -> None:
    cluster = running()
    cluster.suspend(True)
    cluster.step_world("operate")
    assert (cluster.dj.status.phase, of(cluster)) == (Phase.RUNNING, "InProgress")


@pytest.mark.parametrize("reason", [Reason.CHECKPOINT_FORMAT_UNKNOWN, Reason.TRAINER_TOO_OLD])
def test_a_job_that_waits_for_a_change_of_its_spec_is_stalled(reason: Reason) -> None:
    last = closed(1, reason, outcome="Withdrawn", generation=1)
    plan = make_plan(observed(job(status(last, phase=Phase.RECOVERING))), at(60), SETTINGS)
    assert plan.status is not None
    assert kinds(plan.status) == [("Stalled", "True")]
    assert kstatus(1, plan.status.to_wire()) == "Failed"


def test_a_job_that_went_on_after_it_was_stalled_is_in_progress() -> None:
    stalled = Condition(type=ConditionType.STALLED, status="True", reason="TrainerTooOld", last_transition_time=NOW)
    waiting = status(closed(1, Reason.TRAINER_TOO_OLD, outcome="Withdrawn", generation=0), conditions=[stalled])
    plan = make_plan(observed(job(waiting)), at(60), SETTINGS)
    assert plan.status is not None
    assert kinds(plan.status) == [("Reconciling", "True")]
