"""The life of a job, which must end the same whatever disturbs the operator: apply, run, a worker fails, recover,
suspend, resume, succeed, clean up.
"""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from benchmarks.faultapi.testbed import PATIENCE, Lane
from distill_api.constants import Phase
from distill_api.pod.report import TerminationMessage
from distill_api.reasons import Reason
from distill_api.status import DistillJobStatus
from tests.support.apiserver.api import wait_for
from tests.support.apiserver.team import Team

QUIET_SECONDS = 1.0
"""Without a write for so long, the operator is done."""
TIMELESS = ("phase", "attempt", "failures", "preemptions", "restarts_without_progress", "failures_without_progress",
            "failed_starts", "restarts")  # fmt: skip
OF_ATTEMPT = ("number", "nodes", "outcome", "reason", "resumed_from_step", "step", "committed_step", "lost_steps")


@dataclass
class End:
    """How a life ended, without its times."""

    facts: dict[str, Any] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    """How often an event with each reason was written."""
    problems: list[str] = field(default_factory=list)
    """What is wrong with this life alone."""

    def differences(self, undisturbed: "End") -> list[str]:
        """What is wrong, in words. Events may be missing, because they are written after what they tell of, but not
        be written twice."""
        found = list(self.problems)
        for name, value in undisturbed.facts.items():
            if self.facts and self.facts.get(name) != value:
                found.append(f"{name} is {self.facts.get(name)!r} instead of {value!r}")
        for reason, count in self.events.items():
            if count > max(undisturbed.events[reason], 1):
                found.append(f"event {reason} was written {count} times instead of {undisturbed.events[reason]}")
        return found


def live(lane: Lane) -> End:
    """One whole life. A step that does not come is a problem of this life, not an error."""
    end = End()
    try:
        _until_the_end(lane, end)
        _clean_up(lane)
    except AssertionError as error:
        end.problems.append(f"stuck: {error}")
    end.problems += lane.watcher.broken
    return end


def _until_the_end(lane: Lane, end: End) -> None:
    team = lane.team
    team.submit(recovery={"gracePeriodSeconds": 10})
    team.train(1, step=30, committed=20)
    worker = team.pods(1)[1]
    team.kubelet.end(worker, 1, _failed(1, step=30, committed=20))
    team.stop_pods(1, committed=20)

    team.train(2, step=40, committed=40, resumed=20)
    team.api.patch("DistillJob", team.ns, "tiny", {"spec": {"suspend": True}})
    team.stop_pods(2, committed=40)
    team.reaches(Phase.SUSPENDED)

    team.api.patch("DistillJob", team.ns, "tiny", {"spec": {"suspend": False}})
    team.train(3, step=60, committed=60, resumed=40)
    team.finish(3)
    team.reaches(Phase.SUCCEEDED)
    wait_for(lambda: not team.api.list("Service", team.ns), 20 * PATIENCE, lambda: "Services are left")
    _quiet(lane)
    uid = (team.raw() or {})["metadata"]["uid"]
    end.facts = facts_of(team.status)
    end.events = events_of(team, uid)


def _failed(attempt: int, step: int, committed: int) -> TerminationMessage:
    return TerminationMessage(
        outcome="failed", reason=Reason.TRAINER_ERROR, attempt=attempt, step=step, committed_step=committed, rank=2
    )


def _quiet(lane: Lane) -> None:
    """Wait until the operator runs, and has written nothing for a while."""
    deadline, seen, since = time.monotonic() + 60, -1, time.monotonic()
    while time.monotonic() < deadline:
        if seen != len(lane.proxy.writes) or not lane.operator.ready:
            seen, since = len(lane.proxy.writes), time.monotonic()
        elif time.monotonic() - since > QUIET_SECONDS:
            return
        time.sleep(0.1)
    raise AssertionError(f"the operator goes on writing about a finished job: {lane.proxy.writes[-5:]}")


def _clean_up(lane: Lane) -> None:
    """The TTL ends, and nothing of the job is left."""
    team = lane.team
    uid = (team.raw() or {})["metadata"]["uid"]
    team.api.patch("DistillJob", team.ns, "tiny", {"spec": {"ttlSecondsAfterFinished": 1}})
    wait_for(lambda: uid in lane.watcher.deleted, 20 * PATIENCE, lambda: "the TTL has not deleted the job")
    # Kubernetes' garbage collector may know a new CRD only after 30 s.
    wait_for(lambda: not lane.leftovers(), 20 * PATIENCE, lambda: f"orphans: {lane.leftovers()}")


def facts_of(status: DistillJobStatus) -> dict[str, Any]:
    """What must not depend on disturbances."""
    facts = {name: getattr(status, name) for name in TIMELESS}
    facts["attempts"] = [tuple(getattr(attempt, name) for name in OF_ATTEMPT) for attempt in status.attempts]
    facts["conditions"] = sorted((c.type, c.status, c.reason) for c in status.conditions)
    facts["result"] = status.result
    facts["committed"] = status.progress.committed_step if status.progress else None
    return facts


def events_of(team: Team, uid: str) -> Counter[str]:
    """The events about one DistillJob."""
    events = team.api.list("Event", team.ns, fieldSelector=f"involvedObject.uid={uid}")
    return Counter(event["reason"] for event in events)
