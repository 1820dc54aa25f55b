"""An attempt whose pods are all running but which makes no progress is ended.

There are three kinds of evidence. Rank 0 answers, and says how long ago it made progress. Or it does not answer: this
alone shows nothing, since the operator's own network may be the cause. It counts only for the time in which rank 0 was
asked, and only if the pod's kubelet, which asks by another path, finds it unready too. Or it has ended without a
completion record, and the others do not notice.
"""

from datetime import datetime, timedelta

from distill_api.constants import METRICS_PORT
from distill_api.pod.report import TrainerStatus
from distill_api.reasons import Reason
from distill_api.status import Attempt
from distill_operator.types import messages
from distill_operator.types.actions import Notice
from distill_operator.types.observed import SILENT_MISSES, Observed, PodFacts, Silence


def stalled(attempt: Attempt, observed: Observed, timeout: int, now: datetime) -> Notice | None:
    """Why the attempt ends: it made no progress, neither steps nor a validation, for `timeout` seconds.

    Until all pods are running the scheduling timeout applies. Pods that have already succeeded count as running.
    """
    pods = [pod for pod in observed.pods_of(attempt.number) if not pod.gone]
    if len(pods) < attempt.nodes or not any(pod.running for pod in pods):
        return None
    if not all(pod.running or pod.phase == "Succeeded" for pod in pods):
        return None
    if observed.trainer is not None and observed.trainer.attempt == attempt.number:
        return _idle(observed.trainer, timeout)
    rank0 = next((pod for pod in pods if pod.rank == 0), None)
    return _left_alone(rank0, timeout, now) or _silent(attempt, rank0, observed.silence, timeout)


def _idle(answer: TrainerStatus, timeout: int) -> Notice | None:
    if answer.idle_seconds < timeout:
        return None
    text = messages.STALLED.format(seconds=answer.idle_seconds, step=answer.progress.step)
    return Notice(Reason.STALLED, text)


def _left_alone(rank0: PodFacts | None, timeout: int, now: datetime) -> Notice | None:
    if rank0 is None or rank0.end is None or now < rank0.end.at + timedelta(seconds=timeout):
        return None
    seconds = (now - rank0.end.at).total_seconds()
    return Notice(Reason.STALLED, messages.LEFT_ALONE.format(pod=rank0.name, seconds=seconds))


def _silent(attempt: Attempt, rank0: PodFacts | None, silence: Silence | None, timeout: int) -> Notice | None:
    if rank0 is None or rank0.ready or not rank0.running or silence is None or silence.widespread:
        return None
    if silence.misses < SILENT_MISSES or silence.seconds < timeout:
        return None
    place = {"seconds": silence.seconds, "why": silence.why, "port": METRICS_PORT, "pod": rank0.name}
    text = messages.NO_STATUS if attempt.running_at is None else messages.SILENT
    return Notice(Reason.STALLED, text.format(**place, step=attempt.step))


def unanswered(attempt: Attempt, observed: Observed) -> str | None:
    """What to say about a rank 0 that was training and does not answer the operator; None while it answers."""
    silence = observed.silence
    if silence is None or silence.misses < SILENT_MISSES or attempt.running_at is None:
        return None
    return (messages.WIDESPREAD if silence.widespread else messages.UNANSWERED).format(why=silence.why)
