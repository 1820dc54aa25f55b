"""The queue that a DistillJob's labels name, on Jobs that a real API server has admitted. Kueue itself is not here."""

from distill_api.constants import Phase
from distill_api.reasons import Reason
from tests.support.apiserver.api import Object, wait_for
from tests.support.apiserver.team import Team, manifest

QUEUE, PRIORITY = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"


def labels_of(team: Team, name: str) -> Object:
    job: Object = wait_for(lambda: team.api.get("Job", team.ns, name), 20, team.operator.tail)
    return {label: value for label, value in job["metadata"]["labels"].items() if "kueue" in label}


def test_a_changed_queue_holds_for_the_next_attempt(team: Team) -> None:
    """Kueue allows no other queue for a Job that runs: the one that exists keeps its own."""
    job = manifest()
    job["metadata"]["labels"] = {QUEUE: "gpus", PRIORITY: "research"}
    team.api.create(job, team.ns)
    team.train(1, step=30, committed=20)
    assert labels_of(team, "tiny-a1") == {QUEUE: "gpus", PRIORITY: "research"}
    assert not any("kueue" in label for pod in team.pods(1) for label in pod["metadata"]["labels"])

    team.api.patch("DistillJob", team.ns, "tiny", {"metadata": {"labels": {QUEUE: "others", PRIORITY: None}}})
    team.say(1, step=40, committed=30)
    wait_for(lambda: team.attempt().step == 40, 20, team.operator.tail)
    assert labels_of(team, "tiny-a1") == {QUEUE: "gpus", PRIORITY: "research"}
    assert team.attempt().reason is None, "it goes on"

    team.api.patch("DistillJob", team.ns, "tiny", {"spec": {"suspend": True}})
    wait_for(lambda: team.attempt().reason == Reason.SUSPENDED_BY_USER, 20, team.operator.tail)
    team.stop_pods(1, committed=40)
    team.reaches(Phase.SUSPENDED)
    team.api.patch("DistillJob", team.ns, "tiny", {"spec": {"suspend": False}})
    team.train(2, step=50, committed=40, resumed=40)
    assert labels_of(team, "tiny-a2") == {QUEUE: "others"}
