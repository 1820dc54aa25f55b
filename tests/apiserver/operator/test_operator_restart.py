"""The operator is killed with SIGKILL at every stage of a job's life: no attempt too many, no count changed."""

from distill_api.constants import Phase
from distill_api.reasons import Reason
from tests.support.apiserver.api import COLLECTED_WITHIN, Api, make_namespace, wait_for
from tests.support.apiserver.nodes import timestamp
from tests.support.apiserver.operatorprocess import OperatorProcess
from tests.support.apiserver.team import Team, manifest, stopped


def test_a_kill_at_every_stage_of_a_disrupted_life_changes_nothing(team: Team) -> None:
    operator = team.operator
    operator.kill()
    team.submit()
    operator.start()
    team.reaches(Phase.STARTING)
    operator.restart()  # the attempt is stored, its Job perhaps not yet created
    team.scheduled(1)
    operator.kill()
    pods = team.run_gang(1)
    team.say(1, step=30, committed=20)
    operator.start()
    team.reaches(Phase.RUNNING)
    wait_for(lambda: team.attempt().step == 30)

    team.api.delete("Pod", team.ns, pods[1]["metadata"]["name"])
    team.reaches(Phase.RECOVERING)
    operator.kill()
    team.stop_pods(1, committed=30)
    operator.start()
    second = team.reaches(Phase.STARTING)
    assert (second.attempt, second.restarts, second.attempts[0].reason) == (2, "0/1", Reason.POD_DELETED)

    operator.restart()
    team.train(2, step=50, committed=40, resumed=30)
    operator.kill()
    team.finish(2)
    operator.start()
    over = team.reaches(Phase.SUCCEEDED)
    assert (over.attempt, over.restarts) == (2, "0/1")
    assert [a.number for a in over.attempts] == [1, 2]
    before = team.raw()
    operator.restart()
    wait_for(lambda: len(team.api.list("Job", team.ns)) == 1)
    assert operator.stop() == 0
    assert team.raw() == before, "a finished job is not written again"


def job_has(team: Team, condition: str) -> bool:
    (job,) = team.api.list("Job", team.ns)
    return any(c["type"] == condition for c in job["status"].get("conditions") or ())


def test_a_gang_that_was_lost_while_the_operator_was_away(team: Team) -> None:
    operator = team.operator
    team.submit()
    team.train(1, step=30, committed=20)
    operator.kill()
    pods = team.pods(1)
    target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "evicted"}
    conditions = [*pods[1]["status"].get("conditions", []), {**target, "lastTransitionTime": timestamp()}]
    team.api.patch("Pod", team.ns, pods[1]["metadata"]["name"], {"status": {"conditions": conditions}}, "status")
    team.api.delete("Pod", team.ns, pods[1]["metadata"]["name"])
    team.kubelet.end(pods[1], 143, stopped(1, 30))
    wait_for(lambda: job_has(team, "FailureTarget"), 20)
    team.stop_pods(1, committed=30)
    wait_for(lambda: job_has(team, "Failed"), 20)
    for pod in team.pods(1):
        team.api.delete("Pod", team.ns, pod["metadata"]["name"], gracePeriodSeconds=0)
    wait_for(lambda: not team.pods(1))
    operator.start()
    second = team.reaches(Phase.STARTING)
    assert (second.attempt, second.restarts) == (2, "0/1")
    assert second.attempts[0].reason == Reason.DISRUPTED
    assert "DisruptionTarget" in (second.attempts[0].message or "")


def test_a_suspension_that_was_under_way_is_finished(team: Team) -> None:
    team.submit()
    team.train(1, step=30, committed=20)
    team.api.patch("DistillJob", team.ns, "tiny", {"spec": {"suspend": True}})
    wait_for(lambda: team.attempt().reason == Reason.SUSPENDED_BY_USER)
    wait_for(lambda: all(p["metadata"].get("deletionTimestamp") for p in team.pods(1)), 20)
    team.operator.kill()
    team.stop_pods(1, committed=30)
    team.operator.start()
    assert team.reaches(Phase.SUSPENDED).restarts == "0/0"


def test_a_job_deleted_while_the_operator_is_away_leaves_nothing(team: Team) -> None:
    team.submit()
    wait_for(lambda: len(team.pods(1)) == 2)
    team.operator.kill()
    team.api.delete("DistillJob", team.ns, "tiny")
    wait_for(lambda: not team.api.list("Job", team.ns), COLLECTED_WITHIN)
    wait_for(lambda: not team.api.list("Service", team.ns), COLLECTED_WITHIN)


def test_an_operator_of_one_namespace_leaves_the_others_alone(team: Team, operator: OperatorProcess, api: Api) -> None:
    operator.stop()
    make_namespace(api, f"{team.ns}-other")
    operator.start(WATCH_NAMESPACES=team.ns)
    api.create(manifest(), f"{team.ns}-other")
    team.submit()
    team.reaches(Phase.STARTING)
    other = api.get("DistillJob", f"{team.ns}-other", "tiny") or {}
    assert (other["status"]["observedGeneration"], other["status"]["conditions"]) == (-1, []), "nobody has seen it"
    operator.kill()
    api.delete("DistillJob", f"{team.ns}-other", "tiny")
