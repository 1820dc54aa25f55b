"""A small cluster that exists only as values: API objects, a Job controller, kubelets, and the operator's own passes.

It moves in steps that a test chooses. Passes may be cut off after the status write or between two actions, and the
operator may forget everything it has in memory. Every step checks what must always hold.
"""

import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from distill_api.constants import TERMINAL_PHASES, Outcome, Phase
from distill_api.job import DistillJob
from distill_api.reason_facts import Place
from distill_api.reasons import Reason
from distill_api.status import Attempt, DistillJobStatus, Spent
from distill_operator.kube.pod_cache import with_departed
from distill_operator.plan.plan import make_plan
from distill_operator.status import goodput
from distill_operator.types.actions import Create, Delete, Plan
from distill_operator.types.observed import (
    ClaimFacts,
    ContainerEnd,
    Disruption,
    JobFacts,
    Observed,
    Placeholders,
    PodFacts,
    ServiceFacts,
)
from tests.support.operator.samples import CLAIMS, SETTINGS, answer, at, done, job, observed, report

GRACE = 10
TOTAL_STEPS = 20

VOLUMES = {
    "checkpoints": {"claimTemplate": {"resources": {"requests": {"storage": "1Gi"}}}},
    "data": {"claimName": "digits"},
    "models": {"claimName": "runs"},
}

FAULTS = ("preempt", "evict", "delete_pod", "oom", "kill", "peer_lost", "delete_job")
OUTAGES = ("darken", "lighten")
ROOM = ("less_room", "more_room")
NODES = 6
UNREACHABLE_SECONDS = 100
"""After how long the pods of a dark node are deleted: the node controller's patience and the pods' toleration."""
CRASHES = ("after_status", "after_first_action", "forget")


@dataclass
class Cluster:
    """The world. `dj` is the stored DistillJob; everything else is what Kubernetes has."""

    dj: DistillJob = field(default_factory=lambda: job(volumes=VOLUMES))
    claims: tuple[str, ...] = ()
    """Claims made from templates: without them no pod starts."""
    underway: tuple[Create | Delete, ...] = ()
    """Requests whose answer the operator never saw; they arrive when the test says so."""
    jobs: dict[str, JobFacts] = field(default_factory=dict)
    pods: dict[str, PodFacts] = field(default_factory=dict)
    services: dict[str, ServiceFacts] = field(default_factory=dict)
    noted: dict[str, PodFacts] = field(default_factory=dict)
    """The operator's memory of pods: lost with its process."""
    seconds: int = 0
    committed: int = 0
    """The step on the checkpoints volume."""
    step: int = 0
    uids: int = 0
    completions: dict[str, int] = field(default_factory=dict)
    """Pods of each Job, by its name."""
    holders: dict[str, PodFacts] = field(default_factory=dict)
    """Placeholder pods."""
    room: int = NODES
    """Nodes that pods of the job may come to."""
    dark: dict[str, int] = field(default_factory=dict)
    """Nodes without power, and since when."""

    suspended_seconds: float = 0
    """Between passes that found the job suspended."""
    last_pass: int = 0

    # --- what the operator sees and does

    def look(self) -> Observed:
        names = {j.uid: j.attempt for j in self.jobs.values()}
        names |= {a.job_uid: a.number for a in self.dj.status.attempts if a.job_uid}
        merged = with_departed(list(self.pods.values()), self.noted)
        pods = [replace(p, attempt=names.get(p.owner_uid, 0)) for p in merged]
        newest = self.dj.status.attempt
        pods = [p for p in pods if not p.gone or p.attempt == newest]
        self.noted = {p.uid: p for p in pods}
        rank0 = next((p for p in pods if p.rank == 0 and p.running and p.attempt == newest), None)
        trainer = None
        if rank0 is not None and self.step > 0:
            start = self.start_of(newest)
            trainer = answer(self.step, self.committed, number=newest, resumed=start)
        return observed(
            self.dj, *pods, jobs=tuple(j for j in self.jobs.values() if j.attempt), placeholders=self.held(),
            services=tuple(self.services.values()), trainer=trainer,
            claims=(*CLAIMS, *(ClaimFacts(n, ("ReadWriteMany",), "Bound", owned=True) for n in self.claims)),
        )  # fmt: skip

    def held(self) -> Placeholders | None:
        facts = self.jobs.get("tiny-grow")
        return Placeholders(facts, tuple(self.holders.values())) if facts is not None else None

    def start_of(self, attempt: int) -> int:
        return self.resumed.get(attempt, 0)

    resumed: dict[int, int] = field(default_factory=dict)

    def plan(self) -> Plan:
        return make_plan(self.look(), at(self.seconds), SETTINGS)

    def operate(self, crash: str = "") -> Plan:
        """One pass, perhaps cut off."""
        if crash == "forget":
            self.noted = {}
        if self.dj.status.phase == Phase.SUSPENDED and self.dj.status.attempt:
            self.suspended_seconds += self.seconds - self.last_pass
        self.last_pass = self.seconds
        plan = self.plan()
        assert all(Place.EVENT in event.reason.facts.places for event in plan.events), plan.events
        if plan.status is not None:
            self.store(plan.status)
        if crash == "after_status":
            return plan
        if crash == "timed_out":
            self.underway = plan.actions
            return plan
        for action in plan.actions[:1] if crash == "after_first_action" else plan.actions:
            self.act(action)
        return plan

    def store(self, new: DistillJobStatus) -> None:
        old = self.dj.status
        assert old.phase not in TERMINAL_PHASES, "a terminal status was changed"
        assert new.attempt in (old.attempt, old.attempt + 1)
        assert new.failures >= old.failures
        assert new.preemptions >= old.preemptions
        if new.attempt > old.attempt:
            assert not [p for p in self.pods.values() if p.live], "a second gang was decided while the first one lives"
        if new.phase in TERMINAL_PHASES:
            assert not [p for p in self.pods.values() if p.live], "terminal with live pods"
        if new.phase == Phase.SUCCEEDED:
            assert new.result is not None, "success without a record"
            assert new.attempts[-1].outcome == Outcome.SUCCEEDED
        for condition in new.conditions:
            places = Reason(condition.reason).facts.places
            assert f"condition {condition.type}" in places, f"{condition.reason} is undocumented for {condition.type}"
        self.check_time(old, new)
        DistillJobStatus.model_validate(new.to_wire())
        self.dj = self.dj.model_copy(update={"status": new})

    def check_time(self, old: DistillJobStatus, new: DistillJobStatus) -> None:
        """Every second is accounted for once, and nothing that was accounted for is taken back."""
        if new.goodput is None or new.started_at is None:
            assert new.attempt == 0
            return
        if old.phase == new.phase == Phase.SUSPENDED:
            return
        life = (new.goodput.accounted_until - new.started_at).total_seconds() - self.suspended_seconds
        assert goodput.total(new.goodput) == pytest.approx(life, abs=0.05)
        assert all(getattr(new.goodput, kind) >= 0 for kind in goodput.KINDS)
        if old.goodput is not None and new.attempt > old.attempt:
            last, now = measured(old.attempts[-1]), measured(new.attempts[-2])
            assert all(a <= b for a, b in zip(last, now, strict=True)), "time went back"

    def act(self, action: Create | Delete) -> None:
        if isinstance(action, Delete):
            self.delete(action)
            return
        kind, name = action.manifest["kind"], action.manifest["metadata"]["name"]
        number = int(action.manifest["metadata"]["labels"].get("distilljob.dev/attempt", 0))
        if kind == "Job" and name == "tiny-grow":
            self.hold(action.manifest["spec"]["parallelism"])
        elif kind == "Job" and name not in self.jobs:
            assert not [p for p in self.pods.values() if p.live], "a second gang was created while the first one lives"
            self.uids += 1
            self.jobs[name] = JobFacts(name, f"job-{self.uids}", number, True, at(self.seconds))
            self.completions[name] = action.manifest["spec"]["completions"]
            self.resumed[number], self.step = self.committed, self.committed
        if kind == "PersistentVolumeClaim" and name not in self.claims:
            self.claims = (*self.claims, name)
        if kind == "Service" and name not in self.services:
            self.uids += 1
            self.services[name] = ServiceFacts(name, f"svc-{self.uids}", number, True)

    def hold(self, count: int) -> None:
        if "tiny-grow" in self.jobs:
            return
        self.uids += 1
        self.jobs["tiny-grow"] = JobFacts("tiny-grow", f"job-{self.uids}", 0, True, at(self.seconds))
        for number in range(count):
            uid = f"pod-{self.uids}-{number}"
            self.holders[uid] = PodFacts(f"tiny-grow-{number}", uid, 0, "Pending", at(self.seconds))

    def delete(self, action: Delete) -> None:
        if action.kind == "Pod":
            pod = self.pods.get(action.uid)
            assert action.at_once
            assert pod is None or pod.node in self.dark, "a pod was given up although its node answers"
            owner = next((j for j in self.jobs.values() if pod is not None and j.uid == pod.owner_uid), None)
            if pod is not None and (owner is None or owner.deleting):  # else the Job controller's finalizer keeps it
                self.remove(pod)
        if action.kind == "Service":
            self.services = {n: s for n, s in self.services.items() if s.uid != action.uid}
        if action.kind == "Job":
            self.jobs = {n: replace(j, deleting=True) if j.uid == action.uid else j for n, j in self.jobs.items()}

    def arrive(self) -> None:
        """The requests that were under way reach the API server."""
        for action in self.underway:
            self.act(action)
        self.underway = ()

    # --- what Kubernetes does by itself

    def set_pod(self, pod: PodFacts, *, seen: bool = True, **fields: Any) -> None:
        pod = replace(pod, **fields)
        self.pods[pod.uid] = pod
        if seen:
            self.noted[pod.uid] = pod

    def pods_of(self, job_facts: JobFacts) -> list[PodFacts]:
        return [p for p in self.pods.values() if p.owner_uid == job_facts.uid]

    def remove(self, pod: PodFacts) -> None:
        del self.pods[pod.uid]

    def controllers(self) -> None:
        """Job controller and garbage collector, once."""
        self.node_controller()
        for name, facts in list(self.jobs.items()):
            if name == "tiny-grow":
                if facts.deleting:
                    self.holders = {}
                    del self.jobs[name]
                continue
            pods = self.pods_of(facts)
            if facts.deleting:
                for pod in pods:
                    self.terminate(pod)
                if not self.pods_of(facts):
                    del self.jobs[name]
            elif facts.failing_at is None and not facts.complete:
                self.control(facts, pods)
        orphans = {j.uid for j in self.jobs.values()}
        for pod in [p for p in self.pods.values() if p.owner_uid not in orphans]:
            self.terminate(pod)

    def control(self, facts: JobFacts, pods: list[PodFacts]) -> None:
        failed = [p for p in pods if p.phase == "Failed"]
        if failed:
            disrupted = next((p for p in failed if p.disruption), None)
            reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
            if disrupted:
                reason = "PodFailurePolicy"
                message = f"Pod team/{disrupted.name} has condition DisruptionTarget matching FailJob rule at index 0"
            self.jobs[facts.name] = replace(
                facts, failing_at=at(self.seconds), failure_reason=reason, failure_message=message
            )
            for pod in pods:
                if pod.live:
                    self.terminate(pod)
        elif pods and all(p.phase == "Succeeded" for p in pods) and len(pods) == self.completions[facts.name]:
            self.jobs[facts.name] = replace(facts, complete=True)
        else:
            have = {p.rank for p in pods}
            for rank in sorted(set(range(self.completions[facts.name])) - have):
                self.uids += 1
                self.set_pod(
                    PodFacts(
                        f"tiny-a{facts.attempt}-{rank}", f"pod-{self.uids}", 0, "Pending", at(self.seconds),
                        owner_uid=facts.uid, rank=rank,
                    )
                )  # fmt: skip

    def terminate(self, pod: PodFacts) -> None:
        """Deletion by a controller, in two steps: asked for, then gone."""
        if pod.deleted_at is None and pod.live:
            self.set_pod(pod, deleted_at=at(self.seconds), end_due_at=at(self.seconds + GRACE))
        elif not pod.live or pod.node not in self.dark:
            self.remove(pod)

    def end_overdue_pods(self) -> None:
        """A node that has power kills what is past its grace period, and says so."""
        for pod in list(self.pods.values()):
            overdue = pod.end_due_at is not None and at(self.seconds) >= pod.end_due_at
            if overdue and pod.live and pod.node not in self.dark:
                self.remove(pod)

    def node_controller(self) -> None:
        """Pods of nodes that have been silent for long are deleted; their nodes do not hear of it."""
        for pod in list(self.pods.values()):
            since = self.dark.get(pod.node or "")
            if since is None or self.seconds - since < UNREACHABLE_SECONDS:
                continue
            if pod.live and pod.deleted_at is None:
                gone = Disruption("DeletionByTaintManager", "the node is unreachable", at(self.seconds))
                self.set_pod(pod, disruption=gone)
                self.terminate(self.pods[pod.uid])

    def free_node(self) -> str | None:
        """A node that has power and no pod of the job."""
        taken = {p.node for p in (*self.pods.values(), *self.holders.values()) if p.live} | self.dark.keys()
        return next((f"node{n}" for n in range(self.room) if f"node{n}" not in taken), None)

    def kubelets(self) -> None:
        """Start what waits, and end what was asked to."""
        for pod in list(self.pods.values()):
            if pod.phase == "Pending" and pod.deleted_at is None:
                if "tiny-checkpoints" not in self.claims:
                    continue
                node = self.free_node()
                if node is None:
                    self.set_pod(pod, unschedulable="0/6 nodes are available")
                    continue
                self.set_pod(
                    pod, phase="Running", scheduled_at=at(self.seconds), node=node, ip=f"10.0.0.{pod.rank}",
                    unschedulable=None,
                )  # fmt: skip
            elif pod.live and pod.deleted_at is not None and pod.node not in self.dark:
                self.commit()
                end = ContainerEnd("trainer", 143, at(self.seconds), "Error", report("stopped", Reason.STOPPED))
                self.set_pod(pod, phase="Failed", end=end)
        for uid, pod in list(self.holders.items()):
            node = self.free_node()
            if pod.phase == "Pending" and node is not None:
                self.holders[uid] = replace(pod, phase="Running", scheduled_at=at(self.seconds), node=node)

    # --- what the training does

    def gang(self) -> list[PodFacts]:
        pods = [p for p in self.pods.values() if p.running]
        owner = next((j.name for j in self.jobs.values() if pods and j.uid == pods[0].owner_uid), "")
        whole = len(pods) == self.completions.get(owner, 0) and not any(p.node in self.dark for p in pods)
        return sorted(pods, key=lambda p: p.rank or 0) if whole else []

    def train(self) -> None:
        if self.gang():
            self.step = min(TOTAL_STEPS, max(self.step, self.committed) + 3)
            if self.step >= TOTAL_STEPS:
                self.finish()

    def commit(self) -> None:
        self.committed = max(self.committed, self.step)

    def finish(self) -> None:
        self.commit()
        for pod in self.gang():
            record = done(self.dj.status.attempt) if pod.rank == 0 else None
            end = ContainerEnd("trainer", 0, at(self.seconds), "Completed", record)
            self.set_pod(pod, phase="Succeeded", end=end)

    # --- what goes wrong

    def fault(self, kind: str, rank: int) -> None:
        pods = [p for p in self.pods.values() if p.running and p.rank == rank]
        for pod in pods[:1]:
            now, due = at(self.seconds), at(self.seconds + GRACE)
            if kind in ("preempt", "evict"):
                reason = "PreemptionByScheduler" if kind == "preempt" else "EvictionByEvictionAPI"
                self.set_pod(pod, disruption=Disruption(reason, "for a test", now), deleted_at=now, end_due_at=due)
            elif kind == "delete_pod":
                self.set_pod(pod, deleted_at=now, end_due_at=due)
            elif kind in ("oom", "kill"):
                word = "OOMKilled" if kind == "oom" else "Error"
                self.set_pod(pod, phase="Failed", end=ContainerEnd("trainer", 137, now, word))
            elif kind == "peer_lost":
                told = report("failed", Reason.PEER_LOST)
                self.set_pod(pod, phase="Failed", end=ContainerEnd("trainer", 1, now, "Error", told))
        if kind == "delete_job":
            self.jobs = {name: replace(facts, deleting=True) for name, facts in self.jobs.items()}

    def outage(self, kind: str, rank: int) -> None:
        """A pod's node loses power, or all get it back: then their kubelets end what they were asked to."""
        if kind == "lighten":
            self.dark = {}
        for pod in [p for p in self.pods.values() if kind == "darken" and p.live and p.rank == rank and p.node]:
            self.dark.setdefault(pod.node or "", self.seconds)

    def suspend(self, wanted: bool) -> None:
        self.dj = self.dj.model_copy(update={"spec": self.dj.spec.model_copy(update={"suspend": wanted})})

    # --- steps

    def step_world(self, name: str, rank: int = 0) -> None:
        self.seconds += 1
        self.end_overdue_pods()
        if name in FAULTS:
            self.fault(name, rank)
        elif name in OUTAGES:
            self.outage(name, rank)
        elif name in ROOM:
            self.room = min(max(self.room + (-1 if name == "less_room" else 1), 1), NODES)
        elif name in CRASHES:
            self.operate(crash=name)
        elif name == "wait":
            self.seconds += 60
            self.end_overdue_pods()
        elif name in ("suspend", "resume"):
            self.suspend(name == "suspend")
        else:
            getattr(self, name)()
        self.check()

    def check(self) -> None:
        """What holds in every state of the world."""
        live = {p.owner_uid for p in self.pods.values() if p.live}
        assert len(live) <= 1, f"two gangs live: {live}"
        status = self.dj.status
        outcomes = [a.outcome for a in status.attempts]
        assert outcomes.count(Outcome.RUNNING) <= 1
        assert Outcome.RUNNING not in outcomes[:-1]
        if len(status.attempts) == status.attempt:  # none has been dropped from the list yet
            assert status.failures == outcomes.count(Outcome.FAILED)
            assert status.preemptions == outcomes.count(Outcome.DISRUPTED)

    def settle(self, rounds: int = 400) -> DistillJobStatus:
        """Let everything go well until the job is over. Nodes that are dark stay dark; there are others."""
        self.suspend(False)
        self.room = NODES + len(self.dark)
        for _ in range(rounds):
            for name in ("operate", "controllers", "kubelets", "train", "commit"):
                self.step_world(name)
            if self.dj.status.phase in TERMINAL_PHASES:
                self.step_world("operate")
                return self.dj.status
            self.seconds += 20
        raise AssertionError(f"the job is not over: {self.dj.status}")


def measured(attempt: Attempt) -> tuple[float, ...]:
    spent = attempt.spent or Spent()
    training = spent.productive_seconds + spent.lost_work_seconds
    return (training, spent.checkpoint_stall_seconds, spent.validation_seconds, goodput.total(spent))


def shuffled(seed: int, length: int) -> list[tuple[str, int]]:
    """A random story: mostly ordinary life, with faults and crashes in between."""
    chance = random.Random(seed)
    ordinary = ["operate"] * 6 + ["controllers"] * 4 + ["kubelets"] * 4 + ["train"] * 3 + ["commit"]
    rare = [*FAULTS, *CRASHES, *CRASHES, "wait", "suspend", "resume", "resume"]
    return [(chance.choice(ordinary + rare), chance.randrange(2)) for _ in range(length)]
