"""A small cluster that exists only as values: API objects, a Job controller, kubelets, and the operator's own passes.

It moves in steps that a test chooses. Passes may be cut off after the status write or between two actions, and the
operator may forget everything it has in memory. Every step checks what must always hold.
"""

import random
from dataclasses import dataclass, field, replace

import pytest

from distill_api.constants import TERMINAL_PHASES, Outcome, Phase
from distill_api.reason_facts import Place
from distill_api.reasons import Reason
from distill_api.status import Attempt, DistillJobStatus, Spent
from distill_operator.kube.pod_cache import with_departed
from distill_operator.plan.plan import make_plan
from distill_operator.status import goodput
from distill_operator.types.actions import Create, Delete, Plan
from distill_operator.types.observed import (
    ClaimFacts,
    JobFacts,
    Observed,
    Placeholders,
    PodFacts,
    ServiceFacts,
)
from tests.support.operator.samples import CLAIMS, SETTINGS, answer, at, observed
from tests.support.operator.world import NODES, World

FAULTS = ("preempt", "evict", "delete_pod", "oom", "kill", "peer_lost", "delete_job")
OUTAGES = ("darken", "lighten")
ROOM = ("less_room", "more_room")
CRASHES = ("after_status", "after_first_action", "forget")


@dataclass
class Cluster(World):
    """The world with an operator in it."""

    services: dict[str, ServiceFacts] = field(default_factory=dict)
    underway: tuple[Create | Delete, ...] = ()
    """Requests whose answer the operator never saw; they arrive when the test says so."""
    resumed: dict[int, int] = field(default_factory=dict)
    """By attempt: the step from which it went on."""
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
