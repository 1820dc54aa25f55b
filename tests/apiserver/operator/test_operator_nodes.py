"""Nodes that a job avoids, against a real API server and scheduler: pods go elsewhere, and come back if need be."""

from distill_api.constants import AVOIDED_NODES, Phase
from distill_api.pod.report import TerminationMessage
from distill_api.reasons import Reason
from tests.support.apiserver.api import Api, Object, wait_for
from tests.support.apiserver.nodes import GPUS
from tests.support.apiserver.team import Team

ECC = "AcceleratorError: CUDA error: uncorrectable ECC error encountered"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
LINUX = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node0", "node1"]}


def device_fails(team: Team, attempt: int, pod: Object) -> None:
    report = TerminationMessage(outcome="failed", reason=Reason.ACCELERATOR_FAILED, message=ECC, attempt=attempt)
    team.rank0.status = None
    team.kubelet.end(pod, 1, report)


def node_of(pod: Object) -> str:
    return str(pod["spec"]["nodeName"])


def train_alone(team: Team, attempt: int, step: int, resumed: int = 0) -> Object:
    """The only pod of the attempt, once it trains."""

    def placed() -> Object | None:
        return next((pod for pod in team.pods(attempt) if pod["spec"].get("nodeName")), None)

    pod = wait_for(placed, 30, lambda: (team.status.to_wire(), team.operator.tail()))
    team.kubelet.run(pod, team.rank0.ip)
    team.say(attempt, step, committed=step, resumed=resumed)
    team.reaches(Phase.RUNNING)
    wait_for(lambda: team.attempt().step == step)
    return pod


def test_after_a_device_failed_the_next_attempt_runs_on_another_node(team: Team) -> None:
    affinity = {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [LINUX]}]}}}
    team.submit(nodes=1, template={"spec": {"affinity": affinity}})
    failed = train_alone(team, 1, step=20)
    device_fails(team, 1, failed)

    wait_for(lambda: team.status.attempt == 2, 20, team.operator.tail)
    again = train_alone(team, 2, step=40, resumed=20)
    assert node_of(again) != node_of(failed)
    (term,) = again["spec"]["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [LINUX], "the user's own condition stays"
    assert term["matchFields"] == [{"key": "metadata.name", "operator": "NotIn", "values": [node_of(failed)]}]
    status = team.status
    (avoided,) = status.avoided_nodes
    assert (avoided.node, avoided.reason, avoided.attempt) == (node_of(failed), Reason.ACCELERATOR_FAILED, 1)
    first, second = status.attempts
    assert first.ended_at is not None
    assert (avoided.until - first.ended_at).total_seconds() == 3600
    assert first.node == node_of(failed)
    assert second.avoids == [node_of(failed)]
    lines = first.decision or []
    assert lines[0] == "rule: the first event in pods and Job: AcceleratorFailed"
    assert lines[1].startswith(f"cause: {failed['metadata']['name']} on {node_of(failed)}, trainer exit code 1 Error ")
    assert f"node {node_of(failed)} is avoided until" in team.condition("Degraded")["message"]
    events = team.api.list("Event", team.ns, fieldSelector="reason=NodeAvoided")
    assert [node_of(failed) in event["message"] for event in events] == [True]

    team.finish(2)
    over = team.reaches(Phase.SUCCEEDED)
    assert over.attempts[0].decision == lines, "the record of an end is written once"


def test_a_job_that_lacks_the_avoided_node_gets_it_back(team: Team) -> None:
    team.submit(recovery={"gracePeriodSeconds": 10, "schedulingTimeoutSeconds": 5})
    team.train(1, step=20, committed=15)
    failed, other = team.scheduled(1)
    device_fails(team, 1, failed)
    team.kubelet.end(other, 1)
    told = team.waits_because("Unschedulable")
    assert f"its pods must not run on {node_of(failed)}" in told["message"]
    wait_for(lambda: team.status.attempts[1].reason is not None, 30, team.operator.tail)
    second = team.status.attempts[1]
    assert second.reason == Reason.SCHEDULING_TIMEOUT
    assert (second.message or "").endswith(f"no longer avoided: {node_of(failed)}")
    team.stop_pods(2, committed=15)
    wait_for(lambda: len(team.scheduled(3)) == 2, 60, lambda: (team.status.to_wire(), team.operator.tail()))
    assert {node_of(pod) for pod in team.scheduled(3)} == {"node0", "node1"}
    assert team.status.avoided_nodes == []
    job = team.api.get("Job", team.ns, "tiny-a3") or {}
    assert AVOIDED_NODES not in (job["metadata"].get("annotations") or {})


def test_the_api_server_takes_as_many_nodes_as_may_be_avoided(team: Team, api: Api) -> None:
    """matchFields takes one value in each condition; a pod with eight such conditions is accepted and scheduled."""
    excluded = [{"key": "metadata.name", "operator": "NotIn", "values": [f"gone{n}"]} for n in range(7)]
    excluded.append({"key": "metadata.name", "operator": "NotIn", "values": ["node0"]})
    affinity = {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchFields": excluded}]}}}
    container = {"name": "c", "image": "x", "resources": {"limits": {"nvidia.com/gpu": str(GPUS)}}}
    spec = {"containers": [container], "affinity": affinity, "automountServiceAccountToken": False}
    api.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "picky"}, "spec": spec}, team.ns)
    placed = wait_for(lambda: p if (p := api.get("Pod", team.ns, "picky") or {})["spec"].get("nodeName") else None, 30)
    assert node_of(placed) == "node1"
