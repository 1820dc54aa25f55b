"""What else happens to an operator: old pictures, refused writes, edits of the job, clocks that differ.

Time passes only in steps of its own, so that a search through all orders of events meets few different times. A state
is copied in microseconds: all facts are immutable, and only the tables that hold them are copied.
"""

from dataclasses import dataclass
from typing import Any, Self

from distill_api.constants import KIND, TERMINAL_PHASES, Phase
from distill_api.job import DistillJob
from distill_api.reasons import Reason
from distill_api.spec.fields import Elastic
from distill_api.status import Attempt, DistillJobStatus
from distill_operator.plan.plan import make_plan
from distill_operator.types.actions import Action, Create, Delete, Plan
from distill_operator.types.observed import JobFacts, Observed
from tests.support.operator.cluster import Cluster
from tests.support.operator.lives import living
from tests.support.operator.promises import excluded
from tests.support.operator.samples import at, job
from tests.support.operator.world import DISRUPTIONS, ENDS, EXIT_CODES, VOLUMES

PASSING = {"moment": 2, "short_wait": 12, "long_wait": 130}
"""Seconds: within the tolerance for clocks; beyond it and a grace period; beyond every timeout of `small_job`."""
SKEW = 2
"""Seconds by which a node's clock may be wrong."""
PICTURE_SECONDS = 60
"""For how long a pass may use what an earlier one has read: RESYNC_SECONDS."""
TEMPLATES: dict[str, dict[str, Any] | None] = {"spoil_template": {"spec": {"hostNetwork": True}}, "mend_template": None}
SCALES = {"scale_down": 1, "scale_up": 2}
ELASTIC = Elastic(shrink_after_seconds=10**6, grow_after_seconds=10**6)
"""So that nodes may be changed; it neither shrinks nor grows by itself."""
CUT_OFF = ("after_status", "after_first_action", "after_second_action", "timed_out")
"""Passes that end early, or whose requests arrive late."""
RECOVERY = {
    "maxFailures": 1, "maxPreemptions": 1, "maxRestartsWithoutProgress": 1, "gracePeriodSeconds": 10,
    "stallTimeoutSeconds": 60, "schedulingTimeoutSeconds": 60, "nodeLostTimeoutSeconds": 60,
    "avoidNodeSeconds": 120, "exitCodes": EXIT_CODES,
}  # fmt: skip
PASSES = (
    Reason.FAILURE_BUDGET_EXCEEDED,
    Reason.PREEMPTION_BUDGET_EXCEEDED,
    Reason.NO_PROGRESS,
    Reason.POD_CANNOT_START,
)
"""Why a job may be Failed although nothing is wrong with the job itself."""


def small_job() -> DistillJob:
    """Two nodes, and budgets that one fault uses up."""
    return job(volumes=VOLUMES, recovery=RECOVERY)


@dataclass(frozen=True)
class Picture:
    """What an operator has read and not yet acted on."""

    observed: Observed
    at: int


class Hazards(Cluster):
    """The simulated cluster, in which time stands still between steps and the operator may act on an old picture."""

    def __init__(self) -> None:
        super().__init__(dj=small_job(), total_steps=6)
        self.picture: Picture | None = None
        self.stale = False
        """Whether the plan that is carried out is that of an old picture."""
        self.mistaken = False
        """Whether the trainer has said, or a rule for its exit code says, that the job itself is wrong."""
        self.deleted = False
        """Whether the DistillJob is deleted."""

    def copy(self) -> Self:
        """An independent copy."""
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        tables = ("jobs", "pods", "noted", "completions", "holders", "dark", "services", "resumed", "clocks", "lives")
        for name in tables:
            new.__dict__[name] = self.__dict__[name].copy()
        new.untracked = set(self.untracked)
        return new

    @property
    def answers(self) -> bool:
        """Also before the first step: else nobody would notice that there never is one."""
        return True

    # --- steps

    def step_world(self, name: str, rank: int = 0) -> None:
        """One step. Ordinary ones take no time."""
        if name in PASSING:
            self.seconds += PASSING[name]
        elif name == "look":
            self.picture = Picture(self.look(), self.seconds)
        elif name == "act_on_picture":
            self.act_on_picture()
        elif name in (*ENDS, *DISRUPTIONS, "kubelet_evicts", "queue_admits"):
            self.mistaken |= name in ("mistake", "fatal_code")
            self.fault(name, rank)
        elif name in CUT_OFF:
            self.operate(crash=name)
        elif name == "kubelet":
            self.kubelets(rank)
        elif name in TEMPLATES:
            self.edit(template=TEMPLATES[name])
        elif name in SCALES:
            self.edit(elastic=ELASTIC, nodes=SCALES[name])
        elif name == "set_ttl":
            self.edit(ttl_seconds_after_finished=60)
        elif name in ("quota_full", "quota_free"):
            self.quota = name == "quota_full"
        elif name in ("clock_ahead", "clock_behind"):
            self.skew(SKEW if name == "clock_ahead" else -SKEW, rank)
        else:
            if name == "forget":  # its process ends, with all that it had read
                self.picture, self.noted = None, {}
                self.check()
                return
            self.seconds -= 1  # the base class lets one pass
            super().step_world(name, rank)
            return
        self.end_overdue_pods()
        self.check()

    def edit(self, **spec: Any) -> None:
        """The user changes the job."""
        metadata = self.dj.metadata.model_copy(update={"generation": (self.dj.metadata.generation or 0) + 1})
        self.dj = self.dj.model_copy(update={"spec": self.dj.spec.model_copy(update=spec), "metadata": metadata})

    def suspend(self, wanted: bool) -> None:
        if self.dj.spec.suspend != wanted:
            self.edit(suspend=wanted)

    def skew(self, seconds: int, rank: int) -> None:
        """The clock of a rank's node is wrong from now on."""
        for pod in [p for p in self.pods.values() if p.live and p.rank == rank and p.node]:
            self.clocks[pod.node or ""] = seconds

    def act_on_picture(self) -> None:
        """A pass whose reads are old. If the job has changed since, its status write is refused and nothing done."""
        picture, self.picture = self.picture, None
        if picture is None or self.seconds - picture.at > PICTURE_SECONDS:
            return
        plan = make_plan(picture.observed, at(self.seconds), self.settings)
        if plan.status is not None and picture.observed.job is not self.dj:
            return
        self.stale = True
        self.carry_out(plan, picture.observed)
        self.stale = False

    # --- what must hold besides what every simulated cluster checks

    def carry_out(self, plan: Plan, seen: Observed, crash: str = "") -> None:
        before = self.dj
        super().carry_out(plan, seen, crash)
        assert before.status.phase not in TERMINAL_PHASES or not [a for a in plan.actions if isinstance(a, Create)]

    def store(self, new: DistillJobStatus) -> None:
        old = self.dj.status
        ended = {a.number: (a.outcome, a.reason) for a in old.attempts if a.outcome != "Running"}
        for attempt in new.attempts:
            was = ended.get(attempt.number, (attempt.outcome, attempt.reason))
            assert was == (attempt.outcome, attempt.reason), "an attempt that had ended was changed"
        super().store(new)
        if new.phase == Phase.FAILED and old.phase != Phase.FAILED:
            self.check_failed(new)

    def check_failed(self, new: DistillJobStatus) -> None:
        """Failed is for good, so nothing that may pass by itself leads there."""
        reason = Reason(next(c.reason for c in new.conditions if c.type == "Failed"))
        recovery = self.dj.spec.recovery
        most = recovery.max_preemptions
        holds = {
            Reason.FAILURE_BUDGET_EXCEEDED: new.failures > recovery.max_failures,
            Reason.PREEMPTION_BUDGET_EXCEEDED: most is not None and new.preemptions > most,
            Reason.NO_PROGRESS: new.failures_without_progress > recovery.max_restarts_without_progress,
            Reason.POD_CANNOT_START: new.failed_starts > 0 and new.attempts[-1].start_problem is not None,
            Reason.CONFIG_INVALID: self.mistaken,
            Reason.FAIL_JOB_EXIT_CODE: self.mistaken,
        }
        assert holds.get(reason, False), f"the job is Failed for {reason}, which does not hold or may pass"

    def act(self, action: Action) -> None:
        if isinstance(action, Create) and action.manifest["kind"] == "Job" and not self.late:
            self.check_created(action)
        if isinstance(action, Delete) and action.kind == "Job":
            self.check_deleted(action)
        if isinstance(action, Delete) and action.kind == KIND:
            assert self.dj.status.phase in TERMINAL_PHASES, "a job that is not over was deleted"
            self.deleted = True
            return
        super().act(action)

    def check_created(self, action: Create) -> None:
        number = int(action.manifest["metadata"]["labels"]["distilljob.dev/attempt"])
        newest = self.dj.status.attempts[-1]
        if action.manifest["metadata"]["name"] in self.jobs:
            return
        assert number == newest.number, "a Job of an attempt that is not the newest was created"
        assert newest.outcome == "Running", "a Job of an attempt that has ended was created"
        assert excluded(action.manifest) == tuple(newest.avoids or ()), "pods avoid other nodes than is stored"

    def check_deleted(self, action: Delete) -> None:
        """Nothing that is healthy is deleted."""
        facts = next((j for j in self.jobs.values() if j.uid == action.uid), None)
        newest = self.dj.status.attempts[-1] if self.dj.status.attempts else None
        assert facts is None or not facts.deleting or self.late or self.stale, "what is being deleted is deleted again"
        if facts is None or newest is None or facts.attempt != newest.number or facts.inert:
            return
        if self.is_of_another_life(facts, newest):
            return
        assert newest.reason is not None, f"the Job of attempt {newest.number}, which goes on, was deleted"

    def is_of_another_life(self, facts: JobFacts, newest: Attempt) -> bool:
        """Whether the Job is not the newest attempt's: that had another one, which is known by its UID or its pods."""
        if newest.job_uid is not None:
            return facts.uid != newest.job_uid
        return any(p.attempt == newest.number and p.owner_uid != facts.uid for p in living(self.seen))

    def settle(self, rounds: int = 400) -> DistillJobStatus:
        self.edit(template=None, suspend=False)
        self.quota, self.picture = False, None
        over = super().settle(rounds)
        for name in ("arrive", *("controllers", "operate", "controllers", "kubelets", "short_wait") * 3):
            self.step_world(name)
        assert self.dj.status.phase == over.phase
        assert self.deleted or not [pod for pod in self.pods.values() if pod.live], "pods live on after the end"
        return over
