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
from distill_operator.kube.objects import of_attempts
from distill_operator.kube.pod_cache import with_departed
from distill_operator.plan.plan import make_plan
from distill_operator.status import goodput
from distill_operator.types.actions import Action, Delete, Plan, Reserve
from distill_operator.types.attempts import full_nodes
from distill_operator.types.observed import (
    ClaimFacts,
    JobFacts,
    Observed,
    Placeholders,
    PodFacts,
    ServiceFacts,
    Silence,
)
from distill_operator.types.settings import Settings
from tests.support.operator.lives import check_identity, living
from tests.support.operator.promises import check_ends, excluded
from tests.support.operator.samples import CLAIMS, SETTINGS, UID, answer, at, observed
from tests.support.operator.world import NODES, World

FAULTS = (
    "preempt", "evict", "delete_pod", "oom", "kill", "peer_lost", "ecc",
    "delete_job", "orphan_job", "delete_job_in_background", "queue_evicts",
)  # fmt: skip
OUTAGES = ("darken", "lighten")
ROOM = ("less_room", "more_room")
CRASHES = ("after_status", "after_first_action", "forget")


@dataclass
class Cluster(World):
    """The world with an operator in it."""

    settings: Settings = SETTINGS
    services: dict[str, ServiceFacts] = field(default_factory=dict)
    underway: tuple[Action, ...] = ()
    """Requests whose answer the operator never saw; they arrive when the test says so."""
    late: bool = False
    """Whether these requests are arriving."""
    seen: Observed | None = None
    """What the pass that is carried out has read."""
    suspended_seconds: float = 0
    """Between passes that found the job suspended."""
    last_pass: int = 0

    # --- what the operator sees and does

    def look(self) -> Observed:
        names = {j.uid: j.attempt for j in self.jobs.values()}
        names |= {a.job_uid: a.number for a in self.dj.status.attempts if a.job_uid}
        merged = with_departed(list(self.pods.values()), self.noted)
        newest = self.dj.status.attempt
        pods = [p for p in of_attempts(merged, names, UID) if not p.gone or p.attempt == newest]
        self.noted = {p.uid: p for p in pods}
        seen = observed(
            self.dj, *pods, jobs=tuple(j for j in self.jobs.values() if j.attempt), placeholders=self.held(),
            services=tuple(self.services.values()), rejection=self.rejection(newest, len(pods)),
            claims=(*CLAIMS, *(ClaimFacts(n, ("ReadWriteMany",), "Bound", owned=True) for n in self.claims)),
        )  # fmt: skip
        rank0 = next((p for p in seen.pods_of(newest) if p.rank == 0 and p.running), None)
        trainer, silence = None, None
        if rank0 is not None and rank0.node in self.dark:
            silence = Silence(9, self.seconds - self.dark[rank0.node], "timed out")
        elif rank0 is not None and self.answers:
            start = self.start_of(newest)
            trainer = answer(self.step, self.committed, number=newest, resumed=start)
            life = self.lives.get(rank0.uid)
            told = {"idle_seconds": float(self.seconds - self.moved_at), "execution": life and life.execution}
            trainer = trainer.model_copy(update=told)
        return replace(seen, trainer=trainer, silence=silence)

    @property
    def answers(self) -> bool:
        """Whether a running rank 0 answers the operator."""
        return self.step > 0

    def held(self) -> Placeholders | None:
        facts = self.jobs.get("tiny-grow")
        return Placeholders(facts, tuple(self.holders.values())) if facts is not None else None

    def start_of(self, attempt: int) -> int:
        return self.resumed.get(attempt, 0)

    def plan(self) -> Plan:
        return make_plan(self.look(), at(self.seconds), self.settings)

    def operate(self, crash: str = "") -> Plan:
        """One pass, perhaps cut off."""
        if crash == "forget":
            self.noted = {}
        if self.dj.status.phase == Phase.SUSPENDED and self.dj.status.attempt:
            self.suspended_seconds += self.seconds - self.last_pass
        self.last_pass = self.seconds
        seen = self.look()
        plan = make_plan(seen, at(self.seconds), self.settings)
        self.carry_out(plan, seen, crash)
        return plan

    def carry_out(self, plan: Plan, seen: Observed, crash: str = "") -> None:
        """Apply a plan, perhaps only its first writes: the status, then some of the actions."""
        self.seen = seen
        check_identity(plan, seen)
        assert all(Place.EVENT in event.reason.facts.places for event in plan.events), plan.events
        if plan.status is not None:
            self.store(plan.status)
        if crash == "timed_out":
            self.underway = plan.actions
        done = {"after_status": 0, "timed_out": 0, "after_first_action": 1, "after_second_action": 2}
        for action in plan.actions[: done.get(crash)]:
            self.act(action)

    def store(self, new: DistillJobStatus) -> None:
        old = self.dj.status
        same = old.model_copy(update={"observed_generation": new.observed_generation})
        assert old.phase not in TERMINAL_PHASES or new == same, "a terminal status was changed"
        assert new.attempt in (old.attempt, old.attempt + 1)
        assert new.failures >= old.failures
        assert new.preemptions >= old.preemptions
        live = living(self.seen)
        if new.attempt > old.attempt:
            assert not [p for p in live if p.attempt != new.attempt], "a second gang was decided while one lives"
        if new.phase in TERMINAL_PHASES and old.phase not in TERMINAL_PHASES:
            assert not live, "terminal with live pods"
        if new.phase == Phase.SUCCEEDED:
            assert new.result is not None, "success without a record"
            assert new.attempts[-1].outcome == Outcome.SUCCEEDED
        for condition in new.conditions:
            places = Reason(condition.reason).facts.places
            mirrored = {"Reconciling": {"Running"}, "Stalled": {"Failed", "Validated"}}.get(
                condition.type, {condition.type}
            )
            documented = {f"condition {kind}" for kind in mirrored} & places
            assert documented, f"{condition.reason} is undocumented for {condition.type}"
        self.check_time(old, new)
        check_ends(old, new, at(self.seconds))
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

    def act(self, action: Action) -> None:
        if isinstance(action, Delete):
            self.delete(action)
            return
        if isinstance(action, Reserve):
            held = self.jobs.get(action.name)
            if held is not None and held.uid == action.uid and held.suspended:
                self.jobs[action.name] = replace(held, attempt=action.attempt)
            return
        kind, name = action.manifest["kind"], action.manifest["metadata"]["name"]
        number = int(action.manifest["metadata"]["labels"].get("distilljob.dev/attempt", 0))
        if kind == "Job" and name == "tiny-grow":
            self.hold(action.manifest["spec"]["parallelism"], excluded(action.manifest))
        elif kind == "Job" and name not in self.jobs:
            self.uids += 1
            if not self.late and self.seen is not None:
                assert not living(self.seen), "a second gang was created while one lives"
                assert all(j.inert for j in self.seen.jobs), "a second gang was created while a Job may start one"
            nodes = action.manifest["spec"]["completions"]
            avoids = excluded(action.manifest)
            self.jobs[name] = JobFacts(name, f"job-{self.uids}", number, True, at(self.seconds), nodes, avoids)
            self.completions[f"job-{self.uids}"] = nodes
        if kind == "PersistentVolumeClaim" and name not in self.claims:
            self.claims = (*self.claims, name)
        if kind == "Service" and name not in self.services:
            self.uids += 1
            self.services[name] = ServiceFacts(name, f"svc-{self.uids}", number, True)

    def hold(self, count: int, avoids: tuple[str, ...]) -> None:
        if "tiny-grow" in self.jobs:
            return
        self.uids += 1
        self.jobs["tiny-grow"] = JobFacts("tiny-grow", f"job-{self.uids}", 0, True, at(self.seconds), count, avoids)
        for number in range(count):
            uid = f"pod-{self.uids}-{number}"
            self.holders[uid] = PodFacts(f"tiny-grow-{number}", uid, 0, "Pending", at(self.seconds))

    def delete(self, action: Delete) -> None:
        if action.kind == "Pod":
            pod = self.pods.get(action.uid)
            if not action.at_once:
                if pod is not None:
                    self.terminate(pod)
                return
            assert self.settings.forced_pod_deletion, "a pod was deleted by force although that is forbidden"
            assert pod is None or pod.node in self.dark, "a pod was considered lost although its node answers"
            owner = next((j for j in self.jobs.values() if pod is not None and j.uid == pod.owner_uid), None)
            if pod is not None and (owner is None or owner.deleting):  # else the Job controller's finalizer keeps it
                self.remove(pod)
        if action.kind == "Service":
            self.services = {n: s for n, s in self.services.items() if s.uid != action.uid}
        if action.kind == "Job":
            self.jobs = {n: replace(j, deleting=True) if j.uid == action.uid else j for n, j in self.jobs.items()}

    def arrive(self) -> None:
        """The requests that were under way reach the API server."""
        self.late = True
        for action in self.underway:
            self.act(action)
        self.underway, self.late = (), False

    def suspend(self, wanted: bool) -> None:
        self.dj = self.dj.model_copy(update={"spec": self.dj.spec.model_copy(update={"suspend": wanted})})

    def scale(self, nodes: int) -> None:
        """The user changes spec.nodes, as far as the API server allows it."""
        spec = self.dj.spec
        ranks, most = nodes * spec.processes_per_node, full_nodes(self.dj.status, spec)
        begun = self.dj.status.attempt > 0
        if spec.elastic is None or spec.training.batch % ranks or nodes < spec.elastic.min_nodes:
            return
        if nodes <= most or not begun:
            self.dj = self.dj.model_copy(update={"spec": spec.model_copy(update={"nodes": nodes})})

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
        elif name == "scale":
            self.scale(rank + 1)
        elif name in ("suspend", "resume"):
            self.suspend(name == "suspend")
        else:
            getattr(self, name)()
        self.check()

    def check(self) -> None:
        """What holds in every state of the world."""
        able = [p.name for p in self.rank0s if self.may_commit(p)]
        assert len(able) <= 1, f"two gangs can commit: {able}"
        status = self.dj.status
        outcomes = [a.outcome for a in status.attempts]
        assert outcomes.count(Outcome.RUNNING) <= 1
        assert Outcome.RUNNING not in outcomes[:-1]
        if len(status.attempts) == status.attempt:  # none has been dropped from the list yet
            assert status.failures == outcomes.count(Outcome.FAILED)
            assert status.preemptions == outcomes.count(Outcome.DISRUPTED)

    def pass_time(self, seconds: int) -> None:
        """Everybody but the trainer goes on, in steps of ten seconds."""
        until = self.seconds + seconds
        while self.seconds < until:
            for name in ("operate", "controllers", "kubelets", "operate"):
                self.step_world(name)
            self.seconds += 10

    def settle(self, rounds: int = 400) -> DistillJobStatus:
        """Let everything go well until the job is over. Nodes that are dark stay dark; there are others."""
        self.suspend(False)
        self.repair()
        self.room = NODES + len(self.dark)
        for _ in range(rounds):
            for name in ("operate", "controllers", "kubelets", "train", "commit"):
                self.step_world(name)
            self.fault("queue_admits", 0)
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
