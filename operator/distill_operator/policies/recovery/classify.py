"""Why an attempt ended: the cause is the first event in its pods; the events that follow from it are echoes.

For each pod the first event is found, then the first one of all pods. The times are from the clocks of several machines
(`types/clocks.py`), so events that are close are taken as simultaneous, and what they are decides:

    disruption (preemption, eviction, lost node), deletion by someone, a container's own end, a broken connection

Three kinds of events look like causes and are not. When a pod has failed, the Job controller marks the Job as failing
and then deletes the other pods: a deletion after that is an echo. A container that was told to stop, or killed at the
end of its grace period, ended because its pod was deleted. A rank that lost its peer, or that the peer asked to stop,
may end before the peer's pod does: this counts only when nothing else explains the end.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum

from distill_api.constants import TRAINER_CONTAINER, ExitCode
from distill_api.reasons import Reason
from distill_operator.kube import texts
from distill_operator.policies.recovery import exit_codes
from distill_operator.types import messages, naming
from distill_operator.types.actions import Notice
from distill_operator.types.clocks import CONTROL_PLANE_SKEW, NODE_SKEW
from distill_operator.types.observed import ContainerEnd, JobFacts, Observed, PodFacts

KILLED = 137
SETTLE_SECONDS = 30
"""How long to wait for the cause of an echo while some pods have not ended."""
JOB_SECONDS = 5
"""How long to wait for the Job to say whether it was failing when a pod was deleted."""


class Certainty(IntEnum):
    """Of two events at about the same time, the one with the smaller value is the cause."""

    DISRUPTION = 0
    DELETION = 1
    OWN_END = 2
    ECHO = 3


@dataclass(frozen=True)
class Evidence:
    """One event that may have ended the attempt."""

    at: datetime
    certainty: Certainty
    notice: Notice
    pod: PodFacts
    end: ContainerEnd | None = None
    """The end of a container that the event is."""


def completion(observed: Observed, attempt: int) -> Notice | None:
    """Rank 0's completion record, the only proof of success: the student's weights, or what a check has found."""
    for pod in observed.pods_of(attempt):
        report = pod.end.report if pod.end else None
        if pod.rank != 0 or report is None or report.outcome != "done":
            continue
        if report.result is not None:
            return Notice(Reason.COMPLETED, messages.COMPLETED.format(checkpoint=report.result.checkpoint))
        if report.reason == Reason.CHECKED and observed.job.spec.check_only:
            return Notice(Reason.CHECKED, report.message)
    return None


def cause(observed: Observed, attempt: int, job_uid: str | None, now: datetime) -> Notice | None:
    """Why the attempt ended or is ending, without the operator's own decisions. None while it is healthy."""
    pods = observed.pods_of(attempt)
    job, rules = observed.job_of(attempt), observed.job.spec.recovery.exit_codes
    first = first_event(pods, job)
    if first is not None and not _may_be_explained(first, pods, now) and not _awaits_the_job(first, pods, job, now):
        lost_each_other = first.notice.reason == Reason.PEER_LOST
        return (_stalled(pods) if lost_each_other else None) or exit_codes.by_rule(first.notice, first.end, rules)
    if first is not None:
        return None
    if job is None:
        deleted = job_uid is not None or any(pod.orphaned for pod in pods)
        name = naming.attempt_name(observed.name, attempt)
        return Notice(Reason.POD_DELETED, messages.JOB_DELETED.format(job=name)) if deleted else None
    if job.failing_at is not None:
        return exit_codes.by_rule_of_job(from_job_condition(job, observed.victims), job, rules)
    if job.complete:
        return Notice(Reason.NO_COMPLETION_RECORD, messages.NO_RECORD.format(attempt=attempt))
    return None


def _may_be_explained(first: Evidence, pods: Iterable[PodFacts], now: datetime) -> bool:
    waited = (now - first.at).total_seconds()
    return first.certainty == Certainty.ECHO and waited < SETTLE_SECONDS and any(pod.live for pod in pods)


def _awaits_the_job(first: Evidence, pods: Iterable[PodFacts], job: JobFacts | None, now: datetime) -> bool:
    """Whether the Job, which was read before the pods, may yet turn out to have failed before it deleted this one."""
    undecided = first.certainty == Certainty.DELETION and job is not None and job.failing_at is None
    ends = [pod.end.at for pod in pods if pod.end is not None and pod.end.exit_code != ExitCode.DONE]
    close = any(abs(at - first.at) <= NODE_SKEW for at in ends)
    return undecided and close and (now - first.at).total_seconds() < JOB_SECONDS


def _stalled(pods: Iterable[PodFacts]) -> Notice | None:
    """Stalled, if ranks timed out waiting for each other, as when the network between their nodes is cut."""
    ends = [pod.end for pod in pods if pod.end is not None and pod.end.report is not None and pod.end.report.waited]
    first = min(ends, key=lambda end: end.at, default=None)
    if first is None or first.report is None:
        return None
    return Notice(Reason.STALLED, messages.GANG_STALLED.format(message=first.report.message))


def node_loss(pods: Iterable[PodFacts]) -> Notice | None:
    """NodeLost, if the control plane removed a pod for that."""
    found = [evidence for pod in pods for evidence in _disrupted(pod) if evidence.notice.reason == Reason.NODE_LOST]
    first = min(found, key=lambda evidence: evidence.at, default=None)
    return first.notice if first is not None else None


def first_event(pods: Iterable[PodFacts], job: JobFacts | None) -> Evidence | None:
    """The event that caused the end, as far as pods and Job show; None while there is none."""
    gang = tuple(pods)
    found = [evidence for pod in gang for evidence in evidence_of(pod, gang, job)]
    causes = [evidence for evidence in found if evidence.certainty != Certainty.ECHO] or found
    earliest = min((evidence.at for evidence in causes), default=None)
    if earliest is None:
        return None
    together = [evidence for evidence in causes if evidence.at - earliest <= NODE_SKEW]
    return min(together, key=lambda evidence: (evidence.certainty, evidence.at))


def evidence_of(pod: PodFacts, gang: tuple[PodFacts, ...], job: JobFacts | None) -> list[Evidence]:
    """The pod's first event; later ones in the same pod are consequences."""
    disrupted, ended = _disrupted(pod), _ended(pod)
    deleted = [] if is_echo_deletion(pod, gang, job) else _deleted(pod)
    if disrupted and ended and ended[0].at < disrupted[0].at - NODE_SKEW:
        return ended
    if disrupted:
        return disrupted
    if deleted and pod.end is not None and ended and _came_before_deletion(pod, pod.end):
        return ended
    return deleted or ended


def _came_before_deletion(pod: PodFacts, end: ContainerEnd) -> bool:
    """Whether the container ended by itself and not because its pod was being deleted.

    A container that is told to stop ends with its own exit code, or is killed: any other end at about the same time was
    its own.
    """
    if pod.deleted_at is None:
        return True
    killed = end.exit_code == KILLED and end.reason != texts.OOM_KILLED
    tolerance = -NODE_SKEW if killed or not _is_own(pod, end) else NODE_SKEW
    return end.at <= pod.deleted_at + tolerance


def _disrupted(pod: PodFacts) -> list[Evidence]:
    if pod.disruption is not None:
        reason = texts.reason_of_disruption(pod.disruption.reason)
        message = messages.POD_DISRUPTED[reason].format(pod=pod.name, node=pod.node, message=pod.disruption.message)
        return [Evidence(pod.disruption.at, Certainty.DISRUPTION, Notice(reason, message, pod.node), pod)]
    if pod.phase == "Failed" and pod.end is None and pod.reason:  # the kubelet refused or evicted the whole pod
        message = messages.POD_REFUSED_BY_KUBELET.format(
            pod=pod.name, node=pod.node, reason=pod.reason, message=pod.message
        )
        at = pod.deleted_at or pod.scheduled_at or pod.created_at
        return [Evidence(at, Certainty.DISRUPTION, Notice(Reason.EVICTED, message, pod.node), pod)]
    return []


def _deleted(pod: PodFacts) -> list[Evidence]:
    if pod.deleted_at is None:
        return []
    notice = Notice(Reason.POD_DELETED, messages.POD_DELETED.format(pod=pod.name, node=pod.node), pod.node)
    return [Evidence(pod.deleted_at, Certainty.DELETION, notice, pod)]


def _is_own(pod: PodFacts, end: ContainerEnd) -> bool:
    """Whether the container failed by itself, and not because of a peer or a request to stop."""
    return end.exit_code != ExitCode.DONE and not end_notice(pod, end).reason.facts.echo


def is_echo_deletion(pod: PodFacts, gang: tuple[PodFacts, ...], job: JobFacts | None) -> bool:
    """Whether the Job controller deleted the pod because another one had failed.

    If the other one ended at about the same time, by another machine's clock, the Job decides: its controller deletes
    pods only once it has marked the Job as failing. If the other one has only lost a peer, the deletion is blamed in
    case of doubt.
    """
    if pod.deleted_at is None:
        return False
    failing_at = job.failing_at if job is not None else None
    for other in gang:
        end = other.end
        if other.uid == pod.uid or end is None or end.exit_code == ExitCode.DONE:
            continue
        if end.at < pod.deleted_at - NODE_SKEW:
            return True
        if failing_at is None or end.at > pod.deleted_at + NODE_SKEW:
            continue
        if _is_own(other, end) and pod.deleted_at >= failing_at - CONTROL_PLANE_SKEW:
            return True
        if pod.deleted_at >= failing_at and pod.deleted_at > end.at:
            return True
    return False


def _ended(pod: PodFacts) -> list[Evidence]:
    if pod.end is None or pod.end.exit_code == ExitCode.DONE:
        return []
    notice = replace(end_notice(pod, pod.end), node=pod.node)
    certainty = Certainty.ECHO if notice.reason.facts.echo else Certainty.OWN_END
    return [Evidence(pod.end.at, certainty, notice, pod, pod.end)]


def end_notice(pod: PodFacts, end: ContainerEnd) -> Notice:
    """Why a container ended: by the kubelet's reason, else its own report, else its exit code."""
    place = {"pod": pod.name, "node": pod.node, "container": end.container, "code": end.exit_code}
    if end.reason in texts.NEVER_STARTED:
        why = f"{end.reason}: {end.message}"
        return Notice(Reason.POD_CANNOT_START, messages.CANNOT_RUN.format(**place, why=why))
    if end.reason == texts.OOM_KILLED:
        text = messages.OOM if end.container == TRAINER_CONTAINER else messages.OOM_BESIDE
        return Notice(Reason.OUT_OF_MEMORY, text.format(**place))
    report = end.report
    if report is not None and report.outcome == "permanent":
        reason = report.reason if report.reason.facts.fails_again else Reason.CONFIG_INVALID
        return Notice(reason, report.message)
    if report is not None and report.outcome == "failed":
        return Notice(report.reason, messages.REPORTED.format(pod=pod.name, node=pod.node, message=report.message))
    if end.exit_code == ExitCode.STOPPED or (report is not None and report.outcome == "stopped"):
        return Notice(Reason.STOPPED, messages.STOPPED.format(**place))
    if end.init:
        return Notice(Reason.INIT_CONTAINER, messages.INIT_FAILED.format(**place))
    if end.exit_code == ExitCode.PERMANENT and end.container == TRAINER_CONTAINER:
        return Notice(Reason.CONFIG_INVALID, messages.EXITED.format(**place))
    if end.exit_code == KILLED:
        return Notice(Reason.PROCESS_KILLED, messages.KILLED.format(**place))
    return Notice(Reason.TRAINER_ERROR, messages.EXITED.format(**place))


def from_job_condition(job: JobFacts, victims: dict[str, str]) -> Notice:
    """Why the attempt ended when all its pods are gone: the Job's condition names a pod and a rule."""
    for pod, message in victims.items():
        return Notice(
            Reason.PREEMPTED, messages.POD_DISRUPTED[Reason.PREEMPTED].format(pod=pod, node="?", message=message)
        )
    reason = texts.reason_of_failed_job(job.failure_reason, job.failure_message)
    if reason == Reason.DISRUPTED:
        return Notice(reason, messages.DISRUPTED.format(message=job.failure_message))
    if reason == Reason.POD_DELETED:
        return Notice(reason, messages.PODS_DELETED.format(message=job.failure_message))
    return Notice(reason, messages.JOB_FAILED.format(job=job.name, message=job.failure_message))
