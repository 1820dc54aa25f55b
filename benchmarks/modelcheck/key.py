"""When two states of the simulated cluster count as one: when nothing that is decided later can tell them apart.

Times count from now, objects by their names and attempts by their distance from the newest one. Messages are left out,
and what only grows, such as where the time went.
"""

from datetime import datetime
from typing import Any

from distill_api.reason_facts import Blame
from distill_api.reasons import Reason
from distill_api.status import Attempt, DistillJobStatus
from distill_operator.types import attempts
from distill_operator.types.actions import Action, Create, Delete
from distill_operator.types.observed import JobFacts, PodFacts
from tests.support.operator.hazards import Hazards
from tests.support.operator.samples import NOW

LONG_AGO = 125
"""Seconds after which a time is only long ago: no rule of the small job has a longer timeout."""
APART = 15
"""Seconds between two events of a gang beyond which they are only far apart."""
MANY = 8
"""From here on, restarts and failed starts wait and end alike."""
_START = NOW.timestamp()
Key = tuple[Any, ...]


class Clock:
    """Times relative to now."""

    def __init__(self, now: int) -> None:
        self.now = now

    def since(self, moment: datetime | None) -> int | None:
        """Seconds from now, at most LONG_AGO back."""
        return None if moment is None else max(self.raw(moment) - self.now, -LONG_AGO)

    def raw(self, moment: datetime) -> int:
        """Seconds since the start of the simulation."""
        return int(moment.timestamp() - _START)

    def ago(self, seconds: int) -> int:
        """The same for a number of seconds since the start."""
        return max(seconds - self.now, -LONG_AGO)


def key(state: Hazards) -> Key:
    """A value that is equal for states that count as one."""
    clock, status = Clock(state.seconds), state.dj.status
    names = {uid: name for name, uid in ((job.name, job.uid) for job in state.jobs.values())}
    place = Place(state, clock, status.attempt)
    picture = state.picture
    seen = None
    if picture is not None:
        stored = picture.observed.job
        fresh = stored is state.dj
        seen = (
            clock.ago(picture.at), fresh, None if fresh else of_status(stored.status, clock), stored.spec.suspend,
            stored.spec.nodes, place.pods(picture.observed.pods), place.jobs(picture.observed.jobs),
        )  # fmt: skip
    return (
        of_status(status, clock), of_spec(state), place.pods(state.pods.values()), place.jobs(state.jobs.values()),
        place.departed(), seen, tuple(place.of_action(action, names) for action in state.underway),
        tuple(sorted(place.number(s.name) for s in state.services.values())), state.claims, state.step,
        state.committed, state.start_of(status.attempt), clock.ago(state.moved_at) if state.pods else 0, state.spoiled,
        state.quota, state.deleted, state.mistaken, len(state.dark),
        state.fence and state.fence.attempt - status.attempt,
    )  # fmt: skip


def of_spec(state: Hazards) -> Key:
    """What of the spec changes, and whether the status has seen it."""
    spec, generation = state.dj.spec, state.dj.metadata.generation
    status = state.dj.status
    newest = attempts.newest(status)
    return (
        spec.suspend, spec.template is None, spec.ttl_seconds_after_finished is None, spec.nodes, spec.elastic is None,
        status.observed_generation == generation, newest is not None and newest.generation == generation,
    )  # fmt: skip


def of_status(status: DistillJobStatus, clock: Clock) -> Key:
    """The stored status."""
    newest = attempts.newest(status)
    earlier = status.attempts[-2] if len(status.attempts) > 1 else None
    waiting = status.waiting
    return (
        status.phase, min(status.attempt, 3), of_attempt(newest, clock) if newest is not None else None,
        (earlier.outcome, earlier.reason) if earlier is not None else None,
        attempts.committed_before(status, status.attempt), attempts.last_step_before(status, status.attempt),
        status.failures, min(status.preemptions, MANY), min(status.restarts_without_progress, MANY),
        min(status.failures_without_progress, MANY), min(status.failed_starts, MANY),
        clock.since(status.next_attempt_at), clock.since(status.finished_at), status.active_since is None,
        (waiting.reason, clock.since(waiting.since)) if waiting is not None else None, status.result is None,
        status.full_nodes,
        tuple((node.node, clock.since(node.until)) for node in status.avoided_nodes), of_nodes(status, clock),
    )  # fmt: skip


def of_nodes(status: DistillJobStatus, clock: Clock) -> Key:
    """Earlier ends that speak against a node, each for as long as a further one there makes it avoided."""
    told = ((a.node, clock.since(a.ended_at)) for a in status.attempts if a.reason and a.node and blames(a.reason))
    return tuple(sorted((node, since) for node, since in told if since is not None and since > -LONG_AGO))


def blames(reason: Reason) -> bool:
    """Whether an end for this reason speaks against its node."""
    return reason.facts.blames_node != Blame.NEVER


def of_attempt(attempt: Attempt, clock: Clock) -> Key:
    """The newest attempt."""
    problem = attempt.start_problem
    return (
        clock.since(attempt.started_at), attempt.job_uid is None, clock.since(attempt.admitted_at),
        attempt.scheduled_at is None, attempt.running_at is None, clock.since(attempt.ended_at), attempt.outcome,
        attempt.reason, attempt.step, attempt.committed_step, attempt.resumed_from_step, attempt.next_nodes,
        attempt.nodes, attempt.grow_at is None,
        attempt.node, attempt.avoids and tuple(attempt.avoids),
        (problem.reason, problem.lasts, clock.since(problem.since)) if problem is not None else None,
    )  # fmt: skip


class Place:
    """Names of the objects of a state that do not depend on when they were made."""

    def __init__(self, state: Hazards, clock: Clock, newest: int) -> None:
        self._state = state
        self._clock = clock
        self._newest = newest
        self._owners = {job.uid: self.number(job.name) for job in state.jobs.values()}
        known = state.dj.status.attempts
        self._known = known[-1].job_uid if known else None
        self._execution = known[-1].execution if known else None

    def number(self, name: str) -> int:
        """An attempt's number from a name such as tiny-a3, counted from the newest."""
        return int(name.rpartition("-a")[2]) - self._newest

    def pods(self, pods: Any) -> Key:
        """Pods with the order of the events in them."""
        found = list(pods)
        moments = [self._clock.raw(moment) for pod in found for moment in events(pod)]
        moments += [self._clock.raw(job.failing_at) for job in self._state.jobs.values() if job.failing_at is not None]
        first = min(moments, default=self._clock.now)
        rows = sorted((self.pod(pod, first) for pod in found), key=repr)
        return (self._clock.ago(first), *rows)

    def pod(self, pod: PodFacts, first: int) -> Key:
        """One pod; times of events count from the gang's first."""
        state, since = self._state, self._clock.since
        times = (pod.deleted_at, pod.disruption.at if pod.disruption else None, pod.end.at if pod.end else None)
        end = pod.end
        told = end.report if end is not None else None
        return (
            pod.attempt - self._newest, pod.rank, pod.phase, self._owners.get(pod.owner_uid, bool(pod.owner_uid)),
            tuple(min(self._clock.raw(at) - first, APART) if at is not None else None for at in times),
            since(pod.scheduled_at), since(pod.end_due_at), pod.disruption and pod.disruption.reason, pod.reason,
            (end.exit_code, end.reason) if end is not None else None, (told.outcome, told.reason) if told else None,
            pod.unschedulable is None, pod.waiting, pod.ready, pod.gone, pod.uid in state.untracked,
            pod.owner_uid == self._known, self.life(pod), pod.uid in state.noted, pod.uid in state.pods,
            self.node(pod.node), pod.node,
        )  # fmt: skip

    def life(self, pod: PodFacts) -> Key | None:
        """Whether a rank 0 may commit, and how its number is related to the one that is stored."""
        mine = self._state.lives.get(pod.uid)
        if mine is None or not pod.live:
            return None
        return (self._state.may_commit(pod), self._execution is not None and mine.execution - self._execution)

    def node(self, name: str | None) -> Key | None:
        """What is wrong with a node."""
        if name is None:
            return None
        since = self._state.dark.get(name)
        return (None if since is None else self._clock.ago(since), self._state.clocks.get(name, 0))

    def departed(self) -> Key:
        """Pods of the newest attempt that only the operator's memory has."""
        state = self._state
        return self.pods(p for uid, p in state.noted.items() if uid not in state.pods and p.attempt == self._newest)

    def jobs(self, jobs: Any) -> Key:
        """The Jobs of attempts."""
        return tuple(sorted((self.job(job) for job in jobs), key=repr))

    def job(self, job: JobFacts) -> Key:
        """One Job."""
        stored = self._state.jobs.get(job.name)
        return (
            self.number(job.name), job.attempt - self._newest, job.uid == self._known, job.suspended, job.deleting,
            job.complete, job.failing_at is not None and self._clock.since(job.failing_at), job.failure_reason,
            job.nodes, job.avoids, stored is not None and stored.uid == job.uid,
        )  # fmt: skip

    def of_action(self, action: Action, names: dict[str, str]) -> Key | None:
        """A request that has not arrived; None if it would find nothing."""
        if isinstance(action, Create):
            return (action.manifest["kind"], action.manifest["metadata"]["name"].rpartition("-a")[2])
        if isinstance(action, Delete) and action.kind == "Pod":
            pod = self._state.pods.get(action.uid)
            return ("delete", pod.rank, pod.attempt - self._newest, action.at_once) if pod is not None else None
        return (type(action).__name__, action.name, names.get(action.uid))


def events(pod: PodFacts) -> list[datetime]:
    """Times of what happened to a pod."""
    times = (pod.deleted_at, pod.disruption.at if pod.disruption else None, pod.end.at if pod.end else None)
    return [moment for moment in times if moment is not None]
