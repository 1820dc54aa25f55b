"""Why an attempt ended: the cause is the first event in its pods; the events that follow from it are echoes.

For each pod the first event is found, then the earliest one of all pods. Kubernetes' times are whole seconds, so ties
are broken by how likely a kind of event is to be the cause:

    disruption (preemption, eviction, lost node), a container's own end, deletion by someone, a broken connection

Two kinds of events look like causes and are not. When a pod has failed, the Job controller deletes the other pods: a
deletion after another pod's end is an echo. A rank that lost its peer, or that the peer asked to stop, may end before
the peer's pod does: this counts only when nothing else explains the end.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from distill_api.constants import ExitCode
from distill_api.reasons import Reason
from distill_operator.kube import texts
from distill_operator.types import messages
from distill_operator.types.actions import Notice
from distill_operator.types.observed import ContainerEnd, JobFacts, Observed, PodFacts

KILLED = 137
SETTLE_SECONDS = 30
"""How long to wait for the cause of an echo while some pods have not ended."""


class Certainty(IntEnum):
    """Of two events in the same second, the one with the smaller value is the cause."""

    DISRUPTION = 0
    OWN_END = 1
    DELETION = 2
    ECHO = 3


@dataclass(frozen=True)
class Evidence:
    """One event that may have ended the attempt."""

    at: datetime
    certainty: Certainty
    notice: Notice


def completion(observed: Observed, attempt: int) -> Notice | None:
    """Rank 0's completion record: the only proof of success."""
    for pod in observed.pods_of(attempt):
        report = pod.end.report if pod.end else None
        if pod.rank == 0 and report is not None and report.outcome == "done" and report.result is not None:
            return Notice(Reason.COMPLETED, messages.COMPLETED.format(checkpoint=report.result.checkpoint))
    return None


def cause(observed: Observed, attempt: int, job_uid: str | None, now: datetime) -> Notice | None:
    """Why the attempt ended or is ending, without the operator's own decisions. None while it is healthy."""
    pods = observed.pods_of(attempt)
    job = observed.job_of(attempt)
    first = first_event(pods)
    if first is not None and not (_may_be_explained(first, pods, now)):
        lost_each_other = first.notice.reason == Reason.PEER_LOST
        return (_stalled(pods) if lost_each_other else None) or first.notice
    if first is not None:
        return None
    if job is None:
        missing = job_uid is not None and not observed.live_pods
        name = f"{observed.name}-a{attempt}"
        return Notice(Reason.POD_DELETED, messages.JOB_DELETED.format(job=name)) if missing else None
    if job.failing_at is not None:
        return from_job_condition(job, observed.victims)
    if job.complete:
        return Notice(Reason.NO_COMPLETION_RECORD, messages.NO_RECORD.format(attempt=attempt))
    return None


def _may_be_explained(first: Evidence, pods: Iterable[PodFacts], now: datetime) -> bool:
    waited = (now - first.at).total_seconds()
    return first.certainty == Certainty.ECHO and waited < SETTLE_SECONDS and any(pod.live for pod in pods)


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


def first_event(pods: Iterable[PodFacts]) -> Evidence | None:
    """The event that caused the end, as far as the pods show; None while there is none."""
    gang = tuple(pods)
    found = [evidence for pod in gang for evidence in _evidence(pod, gang)]
    causes = [evidence for evidence in found if evidence.certainty != Certainty.ECHO]
    return min(causes or found, key=lambda evidence: (evidence.at, evidence.certainty), default=None)


def _evidence(pod: PodFacts, gang: tuple[PodFacts, ...]) -> list[Evidence]:
    """The pod's first event; later ones in the same pod are consequences."""
    candidates = [
        *_disrupted(pod),
        *([] if _is_echo_deletion(pod, gang) else _deleted(pod)),
        *_ended(pod),
    ]
    order = {Certainty.DISRUPTION: 0, Certainty.DELETION: 1, Certainty.OWN_END: 2, Certainty.ECHO: 3}
    return sorted(candidates, key=lambda evidence: (evidence.at, order[evidence.certainty]))[:1]


def _disrupted(pod: PodFacts) -> list[Evidence]:
    if pod.disruption is not None:
        reason = texts.reason_of_disruption(pod.disruption.reason)
        message = messages.POD_DISRUPTED[reason].format(pod=pod.name, node=pod.node, message=pod.disruption.message)
        return [Evidence(pod.disruption.at, Certainty.DISRUPTION, Notice(reason, message))]
    if pod.phase == "Failed" and pod.end is None and pod.reason:  # the kubelet refused or evicted the whole pod
        message = messages.POD_REFUSED_BY_KUBELET.format(
            pod=pod.name, node=pod.node, reason=pod.reason, message=pod.message
        )
        at = pod.deleted_at or pod.scheduled_at or pod.created_at
        return [Evidence(at, Certainty.DISRUPTION, Notice(Reason.EVICTED, message))]
    return []


def _deleted(pod: PodFacts) -> list[Evidence]:
    if pod.deleted_at is None:
        return []
    notice = Notice(Reason.POD_DELETED, messages.POD_DELETED.format(pod=pod.name, node=pod.node))
    return [Evidence(pod.deleted_at, Certainty.DELETION, notice)]


def _is_echo_deletion(pod: PodFacts, gang: tuple[PodFacts, ...]) -> bool:
    """Whether the Job controller deleted the pod because another one had failed."""
    if pod.deleted_at is None:
        return False
    for other in gang:
        end = other.end
        if other.uid == pod.uid or end is None or end.exit_code == ExitCode.DONE:
            continue
        same_second_echo = end.at == pod.deleted_at and end_notice(other, end).reason.facts.echo
        if end.at <= pod.deleted_at and not same_second_echo:
            return True
    return False


def _ended(pod: PodFacts) -> list[Evidence]:
    if pod.end is None or pod.end.exit_code == ExitCode.DONE:
        return []
    notice = end_notice(pod, pod.end)
    certainty = Certainty.ECHO if notice.reason.facts.echo else Certainty.OWN_END
    return [Evidence(pod.end.at, certainty, notice)]


def end_notice(pod: PodFacts, end: ContainerEnd) -> Notice:
    """Why a container ended: by the kubelet's reason, else its own report, else its exit code."""
    place = {"pod": pod.name, "node": pod.node, "container": end.container, "code": end.exit_code}
    if end.reason == texts.OOM_KILLED:
        return Notice(Reason.OUT_OF_MEMORY, messages.OOM.format(**place))
    report = end.report
    if report is not None and report.outcome == "permanent":
        reason = report.reason if report.reason.facts.fails_again else Reason.CONFIG_INVALID
        return Notice(reason, report.message)
    if report is not None and report.outcome == "failed":
        return Notice(report.reason, messages.REPORTED.format(pod=pod.name, node=pod.node, message=report.message))
    if end.exit_code == ExitCode.STOPPED or (report is not None and report.outcome == "stopped"):
        return Notice(Reason.STOPPED, messages.STOPPED.format(**place))
    if end.exit_code == ExitCode.PERMANENT:
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
