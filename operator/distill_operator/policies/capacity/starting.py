"""Pods that have a node but cannot start hold the gang's nodes for nothing: they are given back.

A cause that lasts until somebody repairs something (a mistyped image, a Secret that does not exist) ends the attempt
after LET_GO_SECONDS; one that may pass by itself (a registry or a storage that is away) only with the scheduling
timeout. Then the job backs off, longer each time, and after MAX_FAILED_STARTS such attempts in a row it is Failed,
unless the cause of the last one may pass by itself.
These attempts are charged to no budget, because nothing was trained.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from distill_api.reason_facts import MAX_FAILED_STARTS
from distill_api.reasons import Reason
from distill_api.status import Attempt, DistillJobStatus, StartProblem
from distill_operator.kube import texts
from distill_operator.types import attempts, messages
from distill_operator.types.actions import Notice
from distill_operator.types.observed import PodFacts

LET_GO_SECONDS = 120
"""For somebody who creates a Secret a minute later, and for the kubelet, which tries to mount it every two minutes."""


@dataclass(frozen=True)
class CannotStart:
    """A pod that cannot start, and why."""

    pod: PodFacts
    reason: Reason
    lasts: bool | None
    """Whether the cause lasts until somebody repairs something; None if the kubelet does not say."""

    @property
    def why(self) -> str:
        """The kubelet's words."""
        return f"{self.pod.waiting}: {self.pod.waiting_message}"


def problem(pods: tuple[PodFacts, ...]) -> CannotStart | None:
    """The first pod that cannot start, one with a cause that lasts before others."""
    found = []
    for pod in pods:
        reason = texts.reason_of_start(pod.waiting) if pod.starting else None
        if reason is not None:
            found.append(CannotStart(pod, reason, texts.lasts(pod.waiting, pod.waiting_message)))
    return min(found, key=lambda cannot: not cannot.lasts, default=None)


def observed(attempt: Attempt, pods: tuple[PodFacts, ...], now: datetime) -> Attempt:
    """The attempt with its start problem, and since when it has it."""
    found = problem(pods) if attempt.running_at is None else None
    if found is None:
        return attempt.model_copy(update={"start_problem": None})
    stored = attempt.start_problem
    if stored is None or stored.reason != found.reason:
        stored = StartProblem(reason=found.reason, since=now)
    lasts = stored.lasts if found.lasts is None else found.lasts
    return attempt.model_copy(update={"start_problem": stored.model_copy(update={"lasts": lasts})})


def let_go_at(attempt: Attempt) -> datetime | None:
    """When the attempt is withdrawn for its start problem; None while that may pass by itself."""
    stored = attempt.start_problem
    return stored.since + timedelta(seconds=LET_GO_SECONDS) if stored is not None and stored.lasts else None


def hopeless(attempt: Attempt, pods: tuple[PodFacts, ...], now: datetime) -> Notice | None:
    """Why the attempt is withdrawn: a pod cannot start, and that lasts."""
    due_at, found = let_go_at(attempt), problem(pods)
    if due_at is None or found is None or now < due_at:
        return None
    message = messages.CANNOT_START.format(pod=found.pod.name, node=found.pod.node, why=found.why)
    return Notice(found.reason, message, found.pod.node)


def counted(status: DistillJobStatus, attempt: Attempt, reason: Reason) -> DistillJobStatus:
    """The status with the attempts in a row that could not start, after `attempt`, the newest, ended for `reason`.

    An attempt that only found no nodes or was disrupted before its first step changes nothing.
    """
    if not reason.facts.cannot_start:
        again = attempt.running_at is not None or reason == Reason.SUSPENDED_BY_USER
        return status.model_copy(update={"failed_starts": 0}) if again else status
    earlier = [before for before in status.attempts if before.number < attempt.number]
    same_spec = bool(earlier) and earlier[-1].generation == attempt.generation
    return status.model_copy(update={"failed_starts": status.failed_starts + 1 if same_spec else 1})


def exceeded(status: DistillJobStatus) -> Notice | None:
    """Why the job must end: too many attempts in a row could not start."""
    last = attempts.newest(status)
    if status.failed_starts < MAX_FAILED_STARTS or last is None or last.reason is None:
        return None
    if last.start_problem is None or not last.start_problem.lasts:
        return None
    message = messages.FAILED_STARTS.format(count=status.failed_starts, last=last.message or "")
    return Notice(last.reason, message)
