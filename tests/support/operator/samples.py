"""Small jobs, pods and reports that the operator's unit tests are written with."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from distill_api.constants import Outcome, Phase
from distill_api.job import DistillJob
from distill_api.pod.report import TerminationMessage, TrainerStatus
from distill_api.reasons import Reason
from distill_api.status import Attempt, DistillJobStatus, Progress, Result
from distill_operator.types.observed import ClaimFacts, ContainerEnd, Disruption, JobFacts, Observed, PodFacts
from distill_operator.types.settings import Settings

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
UID = "11111111-2222-3333-4444-555555555555"
SETTINGS = Settings(trainer_image="trainer:1")
RESULT = Result(checkpoint="tiny/weights/best.pt", sha256="ab" * 32, student_map=0.5, teacher_map=0.6)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def job(status: DistillJobStatus | None = None, *, nodes: int = 2, **spec: Any) -> DistillJob:
    document = {
        "apiVersion": "distilljob.dev/v1alpha1",
        "kind": "DistillJob",
        "metadata": {"name": "tiny", "namespace": "team", "uid": UID, "generation": 1},
        "spec": {
            "student": {"model": "yolo26n.yaml"},
            "teacher": {"model": "teacher.pt"},
            "dataset": {"config": "digits.yaml"},
            "training": {"batch": 16},
            "nodes": nodes,
            "accelerators": {"perNode": 1},
            "volumes": {
                "checkpoints": {"claimName": "runs"},
                "data": {"claimName": "digits"},
                "models": {"claimName": "runs"},
            },
            **spec,
        },
    }
    return DistillJob.model_validate(document).model_copy(update={"status": status or DistillJobStatus()})


def attempt(number: int = 1, **fields: Any) -> Attempt:
    seen = {"job_uid": f"job-{number}", "admitted_at": NOW}
    return Attempt(**{"number": number, "nodes": 2, "started_at": NOW, **seen, **fields})


def closed(number: int = 1, reason: Reason = Reason.PREEMPTED, **fields: Any) -> Attempt:
    ended = {"outcome": Outcome.DISRUPTED, "reason": reason, "message": "why", "ended_at": NOW}
    return attempt(number, **{**ended, **fields})


def status(*attempts: Attempt, phase: Phase = Phase.RUNNING, **fields: Any) -> DistillJobStatus:
    newest = attempts[-1].number if attempts else 0
    started = attempts[0].started_at if attempts else None
    return DistillJobStatus(phase=phase, attempt=newest, attempts=list(attempts), started_at=started, **fields)


def pod(rank: int = 0, number: int = 1, **fields: Any) -> PodFacts:
    running = PodFacts(
        name=f"tiny-a{number}-{rank}",
        uid=f"pod-{number}-{rank}",
        owner_uid=f"job-{number}",
        attempt=number,
        phase="Running",
        created_at=NOW,
        rank=rank,
        node=f"node{rank}",
        ip=f"10.0.{number}.{rank}",
        scheduled_at=NOW,
    )
    return replace(running, **fields)


def ended(seconds: float, code: int, report: TerminationMessage | None = None, reason: str = "Error") -> dict[str, Any]:
    """Fields of a pod whose container ended."""
    end = ContainerEnd("trainer", code, at(seconds), reason, report)
    return {"phase": "Succeeded" if code == 0 else "Failed", "end": end}


def report(outcome: str, reason: Reason = Reason.TRAINER_ERROR, **fields: Any) -> TerminationMessage:
    return TerminationMessage.model_validate({"outcome": outcome, "reason": reason, "attempt": 1, **fields})


def done(number: int = 1) -> TerminationMessage:
    return report("done", Reason.COMPLETED, attempt=number, result=RESULT.model_dump())


def disrupted(seconds: float, reason: str = "PreemptionByScheduler") -> dict[str, Any]:
    return {"disruption": Disruption(reason, "preempted by team/urgent", at(seconds)), "deleted_at": at(seconds)}


def child(number: int = 1, **fields: Any) -> JobFacts:
    return replace(JobFacts(f"tiny-a{number}", f"job-{number}", number, owned=True, created_at=NOW), **fields)


def answer(step: int, committed: int = 0, number: int = 1, resumed: int = 0, **progress: Any) -> TrainerStatus:
    return TrainerStatus(
        job="tiny",
        uid=UID,
        attempt=number,
        rank=0,
        world_size=2,
        state="training",
        resumed_from_step=resumed,
        steps_this_attempt=step - resumed,
        progress=Progress(step=step, steps=100, committed_step=committed, epochs=4, **progress),
    )


CLAIMS = tuple(ClaimFacts(name, ("ReadWriteMany",), "Bound") for name in ("runs", "digits"))


def observed(of: DistillJob, *pods: PodFacts, **fields: Any) -> Observed:
    return Observed(**{"job": of, "namespace": "team", "pods": pods, "claims": CLAIMS, **fields})
