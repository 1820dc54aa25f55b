"""Lives of a gang: who may commit to the checkpoints volume, and what a pass must do about others than its own."""

from dataclasses import dataclass, field

from distill_api.constants import Outcome
from distill_api.reasons import Reason
from distill_operator.types.actions import Delete, Plan
from distill_operator.types.observed import Observed, PodFacts
from distill_trainer.checkpoint.store.fence import Fence
from tests.support.operator.samples import UID


@dataclass
class Volume:
    """The checkpoints volume with its fence, by the trainer's own rule of who replaces whom."""

    pods: dict[str, PodFacts] = field(default_factory=dict)
    committed: int = 0
    """The step on the volume."""
    step: int = 0
    fence: Fence | None = None
    lives: dict[str, Fence] = field(default_factory=dict)
    """What each rank 0 claimed when it started, by the UID of its pod."""
    resumed: dict[int, int] = field(default_factory=dict)
    """By attempt: the step from which its newest life went on."""

    def takes_number(self, pod: PodFacts) -> bool:
        """A rank 0 takes its number, raises the fence and goes on from what is committed; False if it is refused."""
        if self.fence is not None and self.fence.attempt > pod.attempt:
            return False
        last = self.fence.execution if self.fence is not None else 0
        self.fence = self.lives[pod.uid] = Fence(UID, pod.attempt, pod.uid, max(last, pod.attempt - 1) + 1)
        self.resumed[pod.attempt] = self.step = self.committed
        return True

    def may_commit(self, pod: PodFacts) -> bool:
        """Whether the fence lets this rank 0 commit."""
        mine, fence = self.lives.get(pod.uid), self.fence
        return mine is not None and fence is not None and (mine == fence or not mine.replaced_by(fence))

    @property
    def rank0s(self) -> list[PodFacts]:
        """Every rank 0 that runs and has claimed its number, also while it is being deleted."""
        return [p for p in self.pods.values() if p.live and p.phase == "Running" and p.uid in self.lives]


def check_identity(plan: Plan, seen: Observed) -> None:
    """What the picture shows of lives that are not the attempt's own: never adopted, deleted, and told."""
    stored, status = seen.job.status, plan.status or seen.job.status
    if seen.deleting or stored.over or not stored.attempts:
        return
    known = {a.number: a.job_uid for a in stored.attempts}
    asked = {action.uid for action in plan.actions if isinstance(action, Delete)}
    for job in (j for j in seen.jobs if not j.inert and known.get(j.attempt) not in (None, j.uid)):
        assert job.uid in asked, f"Job {job.name}, which is not its attempt's, is left alone"
    number = stored.attempt
    now = next(a for a in status.attempts if a.number == number)
    # A Job that an earlier attempt left for this one, and that was over before it could be used, is nobody's any more.
    spent = [j for j in seen.jobs if j.inert and j.name != f"{seen.name}-a{j.attempt}"]
    strays = [j for j in seen.jobs if j.attempt == number and known[number] not in (None, j.uid) and j not in spent]
    explained = any(p.deleted_at or p.end or p.disruption or p.gone for p in seen.pods if p.attempt == number)
    assert not strays or explained or now.reason is not None, "an attempt goes on with another one's Job"
    if known[number] is None and now.job_uid is not None:
        others = [p for p in living(seen) if p.attempt == number and p.owner_uid != now.job_uid]
        assert not others, "a Job was adopted while pods of another one of its name live"
    told, before = seen.trainer and seen.trainer.execution, stored.attempts[-1].execution
    if told is not None and now.outcome == Outcome.RUNNING:
        assert now.execution == max(told, before or 0), "a life of the gang is not recorded"
        news = any(event.reason == Reason.EXECUTION_CHANGED for event in plan.events)
        assert news == (before is not None and told > before), "a life whose end nobody saw is not told"


def living(seen: Observed | None) -> list[PodFacts]:
    """Pods in which a process may run, as a picture shows them."""
    return [pod for pod in seen.pods if pod.live] if seen is not None else []
