"""A small cluster that exists only as values: API objects, a Job controller, kubelets, and the operator's own passes.

It moves in steps that a test chooses. Passes may be cut off after the status write or between two actions, and the
operator may forget everything it has in memory. Every step checks what must always hold.
"""

import random
from dataclasses import dataclass, field, replace
from typing import Any

from distill_api.constants import TERMINAL_PHASES, Outcome, Phase, Reason
from distill_api.job import DistillJob
from distill_api.status import DistillJobStatus
from distill_operator import decide
from distill_operator.evidence import with_departed
from distill_operator.intent import Create, Delete, Plan
from distill_operator.observed import ClaimFacts, ContainerEnd, Disruption, JobFacts, Observed, PodFacts, ServiceFacts
from unit.operator.samples import CLAIMS, SETTINGS, answer, at, done, job, observed, report

GRACE = 10
TOTAL_STEPS = 20

VOLUMES = {
    "checkpoints": {"claimTemplate": {"resources": {"requests": {"storage": "1Gi"}}}},
    "data": {"claimName": "digits"},
    "models": {"claimName": "runs"},
}

FAULTS = ("preempt", "evict", "delete_pod", "oom", "kill", "peer_lost", "delete_job")
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
    charges: dict[str, int] = field(default_factory=lambda: {"failures": 0, "preemptions": 0})

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
            self.dj, *pods, jobs=tuple(self.jobs.values()), services=tuple(self.services.values()), trainer=trainer,
            claims=(*CLAIMS, *(ClaimFacts(n, ("ReadWriteMany",), "Bound", owned=True) for n in self.claims)),
        )  # fmt: skip

    def start_of(self, attempt: int) -> int:
        return self.resumed.get(attempt, 0)

    resumed: dict[int, int] = field(default_factory=dict)

    def plan(self) -> Plan:
        return decide.plan(self.look(), at(self.seconds), SETTINGS)

    def operate(self, crash: str = "") -> Plan:
        """One pass, perhaps cut off."""
        if crash == "forget":
            self.noted = {}
        plan = self.plan()
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
        DistillJobStatus.model_validate(new.to_wire())
        self.dj = self.dj.model_copy(update={"status": new})

    def act(self, action: Create | Delete) -> None:
        if isinstance(action, Delete):
            self.delete(action)
            return
        kind, name = action.manifest["kind"], action.manifest["metadata"]["name"]
        number = int(action.manifest["metadata"]["labels"].get("distilljob.dev/attempt", 0))
        if kind == "Job" and name not in self.jobs:
            assert not [p for p in self.pods.values() if p.live], "a second gang was created while the first one lives"
            self.uids += 1
            self.jobs[name] = JobFacts(name, f"job-{self.uids}", number, True, at(self.seconds))
            self.resumed[number], self.step = self.committed, self.committed
        if kind == "PersistentVolumeClaim" and name not in self.claims:
            self.claims = (*self.claims, name)
        if kind == "Service" and name not in self.services:
            self.uids += 1
            self.services[name] = ServiceFacts(name, f"svc-{self.uids}", number, True)

    def delete(self, action: Delete) -> None:
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
        for name, facts in list(self.jobs.items()):
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
        elif pods and all(p.phase == "Succeeded" for p in pods) and len(pods) == 2:
            self.jobs[facts.name] = replace(facts, complete=True)
        else:
            have = {p.rank for p in pods}
            for rank in {0, 1} - have:
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
            self.set_pod(pod, deleted_at=at(self.seconds))
        else:
            self.remove(pod)

    def kubelets(self) -> None:
        """Start what waits, and end what was asked to."""
        for pod in list(self.pods.values()):
            if pod.phase == "Pending" and pod.deleted_at is None:
                if "tiny-checkpoints" not in self.claims:
                    continue
                node = f"node{pod.rank}"
                self.set_pod(pod, phase="Running", scheduled_at=at(self.seconds), node=node, ip=f"10.0.0.{pod.rank}")
            elif pod.live and pod.deleted_at is not None:
                self.commit()
                end = ContainerEnd("trainer", 143, at(self.seconds), "Error", report("stopped", Reason.STOPPED))
                self.set_pod(pod, phase="Failed", end=end)

    # --- what the training does

    def gang(self) -> list[PodFacts]:
        pods = [p for p in self.pods.values() if p.running]
        return sorted(pods, key=lambda p: p.rank or 0) if len(pods) == 2 else []

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
            now = at(self.seconds)
            if kind in ("preempt", "evict"):
                reason = "PreemptionByScheduler" if kind == "preempt" else "EvictionByEvictionAPI"
                self.set_pod(pod, disruption=Disruption(reason, "for a test", now), deleted_at=now)
            elif kind == "delete_pod":
                self.set_pod(pod, deleted_at=now)
            elif kind in ("oom", "kill"):
                word = "OOMKilled" if kind == "oom" else "Error"
                self.set_pod(pod, phase="Failed", end=ContainerEnd("trainer", 137, now, word))
            elif kind == "peer_lost":
                told = report("failed", Reason.PEER_LOST)
                self.set_pod(pod, phase="Failed", end=ContainerEnd("trainer", 1, now, "Error", told))
        if kind == "delete_job":
            self.jobs = {name: replace(facts, deleting=True) for name, facts in self.jobs.items()}

    def suspend(self, wanted: bool) -> None:
        self.dj = self.dj.model_copy(update={"spec": self.dj.spec.model_copy(update={"suspend": wanted})})

    # --- steps

    def step_world(self, name: str, rank: int = 0) -> None:
        self.seconds += 1
        if name in FAULTS:
            self.fault(name, rank)
        elif name in CRASHES:
            self.operate(crash=name)
        elif name == "wait":
            self.seconds += 60
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
        """Let everything go well until the job is over."""
        self.suspend(False)
        for _ in range(rounds):
            for name in ("operate", "controllers", "kubelets", "train", "commit"):
                self.step_world(name)
            if self.dj.status.phase in TERMINAL_PHASES:
                self.step_world("operate")
                return self.dj.status
            self.seconds += 20
        raise AssertionError(f"the job is not over: {self.dj.status}")


def shuffled(seed: int, length: int) -> list[tuple[str, int]]:
    """A random story: mostly ordinary life, with faults and crashes in between."""
    chance = random.Random(seed)
    ordinary = ["operate"] * 6 + ["controllers"] * 4 + ["kubelets"] * 4 + ["train"] * 3 + ["commit"]
    rare = [*FAULTS, *CRASHES, *CRASHES, "wait", "suspend", "resume", "resume"]
    return [(chance.choice(ordinary + rare), chance.randrange(2)) for _ in range(length)]
