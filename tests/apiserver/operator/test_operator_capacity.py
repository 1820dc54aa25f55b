"""Nodes that go and come, against a real node controller, scheduler, Job controller and garbage collector."""

import time
from datetime import UTC, datetime, timedelta

from distill_api.constants import Outcome, Phase
from distill_api.pod.report import RankSeconds
from distill_api.pod.run import RunConfig
from distill_api.reasons import Reason
from testcluster import ControlPlane
from tests.support.apiserver.api import Api, Object, wait_for
from tests.support.apiserver.nodes import GPUS, Nodes
from tests.support.apiserver.team import Team

UNREACHABLE = ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready")
IMPATIENT = {
    "tolerations": [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1} for key in UNREACHABLE
    ]
}
GRACE, WAIT = 10, 4


def pod_on(team: Team, attempt: int, node: str) -> Object:
    return next(pod for pod in team.scheduled(attempt) if pod["spec"]["nodeName"] == node)


def test_a_node_that_never_confirms_is_given_up_and_the_job_goes_on(team: Team, nodes: Nodes, api: Api) -> None:
    team.submit(
        scheduling=IMPATIENT, recovery={"gracePeriodSeconds": GRACE, "nodeLostTimeoutSeconds": WAIT}
    )  # fmt: skip
    team.train(1, step=57, committed=50)
    dark = pod_on(team, 1, "node1")["metadata"]
    with nodes.silence("node1"):
        lost = wait_for(lambda: a if (a := team.attempt()).reason is not None else None, 60, team.operator.tail)
        assert lost.reason == Reason.NODE_LOST
        assert "node1" in (lost.message or "")
        for pod in team.pods(1):  # the living node's pod ends as its peer's connection breaks
            if pod["spec"]["nodeName"] == "node0":
                team.rank0.status = None
                team.kubelet.end(pod, 1)
        waiting = f"{dark['name']} on node node1 are past their grace period"
        told = wait_for(lambda: c if waiting in (c := team.condition("Running"))["message"] else None, 30)
        assert told["reason"] == "NodeLost"
        stuck = api.get("Pod", team.ns, dark["name"])
        assert stuck is not None
        assert stuck["metadata"]["deletionTimestamp"]
        assert stuck["status"]["phase"] == "Running", "nobody has said that it ended"
        assert team.status.attempt == 1

        second = wait_for(lambda: s if (s := team.status).attempt == 2 else None, 60, team.operator.tail)
        assert api.get("Pod", team.ns, dark["name"]) is None
        assert (second.preemptions, second.failures) == (1, 0)
        assert second.attempts[0].outcome == Outcome.DISRUPTED
        waited = (second.attempts[1].started_at - lost.ended_at).total_seconds() if lost.ended_at else 0
        assert GRACE + WAIT - 1 <= waited <= GRACE + WAIT + 15
        assert "1 of 2 pods cannot be scheduled" in team.waits_because("Unschedulable")["message"]
        # Times in objects have whole seconds: a wait that begins and ends in one of them counts as none.
        began = second.attempts[1].started_at
        wait_for(lambda: datetime.now(UTC) - began >= timedelta(seconds=2) or None, 5)
    team.train(2, step=60, committed=57, resumed=50)
    team.finish(2)
    over = team.reaches(Phase.SUCCEEDED)
    assert over.attempts[1].lost_steps == 7
    assert over.goodput is not None
    assert over.goodput.waiting_for_capacity_seconds > 0


ZONE = "topology.kubernetes.io/zone"


def put_into_zone(api: Api, node: str, zone: str | None) -> None:
    api.patch("Node", "", node, {"metadata": {"labels": {ZONE: zone}}})


def test_pods_that_must_share_a_zone_wait_for_room_in_it(team: Team, nodes: Nodes, api: Api) -> None:
    try:
        for node in nodes.names:
            put_into_zone(api, node, f"zone-of-{node}")
        team.submit(scheduling={"requiredTopology": ZONE})
        waits = team.waits_because("Unschedulable")["message"]
        assert "1 of 2 pods cannot be scheduled" in waits
        assert "didn't match pod affinity rules" in waits
        for node in nodes.names:
            put_into_zone(api, node, "a")
        assert {pod["spec"]["nodeName"] for pod in team.scheduled(1)} == set(nodes.names)
        team.train(1, step=10)
    finally:
        for node in nodes.names:
            put_into_zone(api, node, None)


def urgent_pod(node: str) -> Object:
    container = {"name": "c", "image": "x", "resources": {"limits": {"nvidia.com/gpu": str(GPUS)}}}
    spec = {"containers": [container], "nodeName": node, "automountServiceAccountToken": False}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "other"}, "spec": spec}


def placeholders(team: Team) -> list[Object]:
    return team.api.list("Pod", team.ns, labelSelector="app.kubernetes.io/component=placeholder")


def alone(team: Team, attempt: int) -> Object | None:
    """The attempt's pod, once it is its only one and has a node."""
    pods = team.pods(attempt)
    return pods[0] if len(pods) == 1 and pods[0]["spec"].get("nodeName") else None


def test_an_elastic_job_shrinks_and_grows_with_the_room_that_there_is(team: Team, nodes: Nodes) -> None:
    del nodes
    team.api.create(urgent_pod("node1"), team.ns)
    elastic = {"minNodes": 1, "shrinkAfterSeconds": 3, "growAfterSeconds": 2}
    team.submit(elastic=elastic)
    wait_for(
        lambda: s if (s := team.status).attempts and s.attempts[0].next_nodes == 1 else None, 20, team.operator.tail
    )
    team.stop_pods(1, committed=0)
    pod = wait_for(lambda: alone(team, 2), 20, lambda: (team.status.to_wire(), team.operator.tail()))
    degraded = wait_for(lambda: c if (c := team.condition("Degraded"))["status"] == "True" else None)
    assert (degraded["reason"], degraded["message"][:9]) == ("FewerNodes", "nodes 1/2")

    team.kubelet.run(pod, team.rank0.ip)
    team.say(2, step=5)
    team.reaches(Phase.RUNNING)
    (holder,) = wait_for(lambda: placeholders(team), 20, team.operator.tail)
    wait_for(lambda: placeholders(team)[0]["status"].get("conditions"))
    assert "nodeName" not in holder["spec"], "there is no room yet"
    assert team.status.attempt == 2
    team.say(2, step=50, committed=48)
    wait_for(lambda: team.attempt().step == 50)

    team.api.delete("Pod", team.ns, "other", gracePeriodSeconds=0)
    holder = wait_for(lambda: p if (p := placeholders(team)[0])["spec"].get("nodeName") else None, 40)
    assert holder["spec"]["nodeName"] != pod["spec"]["nodeName"]
    assert team.attempt().reason is None, "a node is there when its placeholder runs"
    team.kubelet.run(holder, "127.0.0.1")
    grown = wait_for(lambda: a if (a := team.attempt()).reason is not None else None, 20, team.operator.tail)
    assert (grown.reason, grown.next_nodes) == (Reason.GROWING, 2)
    team.stop_pods(2, committed=50)
    wait_for(lambda: team.status.attempt == 3, 20, team.operator.tail)
    wait_for(lambda: all(p["metadata"].get("deletionTimestamp") for p in placeholders(team)), 20, team.operator.tail)
    for gone in placeholders(team):
        team.kubelet.remove(gone)
    team.train(3, step=60, committed=55, resumed=50)
    assert team.condition("Degraded")["status"] == "False"
    team.finish(3)
    over = team.reaches(Phase.SUCCEEDED)
    assert [(a.nodes, a.outcome, a.reason) for a in over.attempts] == [
        (2, Outcome.WITHDRAWN, Reason.SCHEDULING_TIMEOUT),
        (1, Outcome.WITHDRAWN, Reason.GROWING),
        (2, Outcome.SUCCEEDED, Reason.COMPLETED),
    ]
    assert (over.attempts[2].lost_steps, over.restarts) == (0, "0/0")
    wait_for(lambda: {j["metadata"]["name"] for j in team.api.list("Job", team.ns)} == {"tiny-a3"}, 20)


def test_kubectl_scale_changes_a_job_that_trains(team: Team, nodes: Nodes, plane: ControlPlane) -> None:
    del nodes
    team.submit(elastic={"minNodes": 1, "shrinkAfterSeconds": 30, "growAfterSeconds": 2})
    team.train(1, step=40, committed=30)
    assert (team.status.full_nodes, team.status.replicas) == (2, 2)
    plane.kubectl("scale", "dj/tiny", "--replicas=1", f"--namespace={team.ns}")
    wait_for(lambda: team.attempt().reason == Reason.SCALED_DOWN, 20, team.operator.tail)
    team.stop_pods(1, committed=40)
    pod = wait_for(lambda: alone(team, 2), 20, lambda: (team.status.to_wire(), team.operator.tail()))
    (container,) = pod["spec"]["containers"]
    run = RunConfig.model_validate_json(next(v["value"] for v in container["env"] if v["name"] == "DISTILL_RUN"))
    assert (run.nodes, run.spec.world_size) == (1, 4), "the global batch has the same shards"
    team.kubelet.run(pod, team.rank0.ip)
    team.say(2, step=50, committed=48, resumed=40)
    team.reaches(Phase.RUNNING)
    assert team.condition("Degraded")["status"] == "False", "it has what it asks for"

    plane.kubectl("scale", "dj/tiny", "--replicas=2", f"--namespace={team.ns}")
    placed = wait_for(lambda: [p for p in placeholders(team) if p["spec"].get("nodeName")], 40, team.operator.tail)
    team.kubelet.run(placed[0], "127.0.0.1")
    wait_for(lambda: team.attempt().reason == Reason.GROWING, 20, team.operator.tail)
    team.stop_pods(2, committed=50)
    wait_for(lambda: team.status.attempt == 3, 20, team.operator.tail)
    wait_for(lambda: all(p["metadata"].get("deletionTimestamp") for p in placeholders(team)), 20, team.operator.tail)
    for gone in placeholders(team):
        team.kubelet.remove(gone)
    over = team.train(3, step=60, committed=55, resumed=50)
    assert [(a.nodes, a.reason, a.lost_steps or 0) for a in over.attempts] == [
        (2, Reason.SCALED_DOWN, 0),
        (1, Reason.GROWING, 0),
        (2, None, 0),
    ]
    assert over.restarts == "0/0"


def test_the_time_of_a_job_is_in_status_and_metrics(team: Team) -> None:
    team.submit()
    team.train(1, step=40, committed=30)
    told = RankSeconds(starting=1, training=2, checkpoint=0.5, validation=0.5)
    assert team.rank0.status is not None
    team.rank0.status = team.rank0.status.model_copy(update={"seconds": told})
    time.sleep(5)  # there must be some time to account for
    wait_for(lambda: (g := team.status.goodput) and g.validation_seconds == 0.5, why=lambda: team.status.goodput)
    team.finish(1)
    over = team.reaches(Phase.SUCCEEDED)
    goodput = over.goodput
    assert goodput is not None
    assert over.started_at is not None
    assert over.finished_at is not None
    wall = (over.finished_at - over.started_at).total_seconds()
    kinds = [value for name, value in goodput.model_dump().items() if name.endswith("_seconds")]
    assert len(kinds) == 6
    assert abs(sum(kinds) - wall) <= 0.01 * wall
    assert (goodput.productive_seconds, goodput.checkpoint_stall_seconds) == (2.0, 0.5)
    shown = f'distill_operator_goodput_ratio{{distilljob="tiny",namespace="{team.ns}"}} {goodput.ratio}'
    wait_for(lambda: shown in team.operator.metrics(), why=team.operator.metrics)
