"""Rules for exit codes with the real Job controller: while the pods are there, then by its condition."""

import pytest

from distill_api.constants import Outcome, Phase
from distill_api.reasons import Reason
from tests.support.apiserver.api import wait_for
from tests.support.apiserver.team import Team

RECOVERY = {
    "gracePeriodSeconds": 10,
    "maxFailures": 0,
    "exitCodes": [{"values": [42], "action": "FailJob"}, {"values": [75, 139], "action": "Ignore"}],
}


def job_message(team: Team) -> str | None:
    """What the condition Failed of the attempt's Job says."""
    (job,) = team.api.list("Job", team.ns)
    conditions = job["status"].get("conditions") or ()
    return next((c["message"] for c in conditions if c["type"] == "Failed" and c["status"] == "True"), None)


def test_an_ignored_exit_code_starts_the_next_attempt_uncharged(team: Team) -> None:
    team.submit(recovery=RECOVERY)
    team.train(1, step=30, committed=20)
    team.kubelet.end(team.pods(1)[1], 75)
    team.stop_pods(1, committed=20)
    second = team.reaches(Phase.STARTING)
    assert (second.attempt, second.restarts) == (2, "0/0")
    assert (second.attempts[0].outcome, second.attempts[0].reason) == (Outcome.WITHDRAWN, Reason.IGNORED_EXIT_CODE)
    team.kubelet.end(team.run_gang(2)[0], 42)
    team.stop_pods(2, committed=0)
    over = team.reaches(Phase.FAILED)
    assert (over.attempt, over.restarts) == (2, "1/0")
    assert team.condition("Failed")["reason"] == "FailJobExitCode"


@pytest.mark.parametrize(
    ("code", "index", "phase", "reason"),
    [(42, 2, Phase.FAILED, Reason.FAIL_JOB_EXIT_CODE), (139, 3, Phase.STARTING, Reason.IGNORED_EXIT_CODE)],
)
def test_a_rule_holds_when_all_pods_have_gone_unseen(
    team: Team, code: int, index: int, phase: Phase, reason: Reason
) -> None:
    team.submit(recovery=RECOVERY)
    team.train(1, step=30, committed=20)
    team.operator.kill()
    team.kubelet.end(team.pods(1)[1], code)
    wait_for(lambda: any(p["metadata"].get("deletionTimestamp") for p in team.pods(1)), 20)
    team.stop_pods(1, committed=20)
    said = wait_for(lambda: job_message(team), 20)
    assert f"failed with exit code {code} matching FailJob rule at index {index}" in said
    for pod in team.pods(1):
        team.api.delete("Pod", team.ns, pod["metadata"]["name"], gracePeriodSeconds=0)
    wait_for(lambda: not team.pods(1))
    team.operator.start()
    found = team.reaches(phase)
    assert found.attempts[0].reason == reason
    assert f"exit code {code}: spec.recovery.exitCodes says" in (found.attempts[0].message or "")
