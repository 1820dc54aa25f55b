"""What is printed of a training across its attempts."""

from datetime import datetime

import pytest

from distill_api.pod.report import TerminationMessage, TrainerStatus
from distill_api.reasons import Reason
from distill_api.spec.fields import Recovery
from distill_api.status import Progress, SpecChange, VersionChange
from distill_operator.policies.recovery import progress_guard
from distill_operator.status import progress
from tests.support.operator.samples import UID, answer, at, attempt, closed, ended, job, observed, pod, report, status


def starting(number: int) -> TrainerStatus:
    return TrainerStatus(
        job="tiny", uid=UID, attempt=number, rank=0, world_size=2, state="starting", progress=Progress()
    )


def test_a_trainer_that_has_not_resumed_yet_does_not_set_the_progress_back() -> None:
    known = Progress(step=57, steps=100, committed_step=50, distillation_loss=1.2)
    resuming = status(closed(1, step=57, committed_step=50), attempt(2), progress=known)
    waiting = progress.folded(resuming, observed(job(resuming), trainer=starting(2)), at(5))
    assert waiting.progress == known
    assert waiting.attempts[1].step is None
    told = answer(50, 50, number=2, resumed=50)
    resumed = progress.folded(waiting, observed(job(waiting), trainer=told), at(6))
    assert resumed.progress is not None
    assert (resumed.progress.step, resumed.progress.committed_step) == (50, 50)
    assert resumed.progress.distillation_loss == 1.2, "measured again only at the next step"
    assert resumed.attempts[1].lost_steps == 7


def test_a_rank_that_ends_before_it_resumed_does_not_set_the_progress_back() -> None:
    known = Progress(step=57, steps=100, committed_step=50)
    resuming = status(closed(1, step=57), attempt(2), progress=known)
    last = report("failed", attempt=2, step=0, progress={})
    told = progress.folded(resuming, observed(job(resuming), pod(0, number=2, **ended(9, 1, last))), at(10))
    assert told.progress == known
    assert told.attempts[1].step is None


TORCH = VersionChange(name="torch", checkpoint="2.8.0", attempt="2.9.0")


def test_a_resume_with_other_versions_stays_in_the_attempt() -> None:
    resuming = status(closed(1, step=57, committed_step=50), attempt(2))
    told = answer(50, 50, number=2, resumed=50).model_copy(update={"version_changes": [TORCH]})
    resumed = progress.folded(resuming, observed(job(resuming), trainer=told), at(6))
    assert resumed.attempts[1].version_changes == [TORCH]
    assert resumed.attempts[0].version_changes is None
    assert progress.worth_writing(resuming, resumed, 5)
    silent = progress.folded(resumed, observed(job(resumed), trainer=answer(51, 50, number=2, resumed=50)), at(7))
    assert silent.attempts[1].version_changes == [TORCH]
    written = silent.to_wire()["attempts"]
    assert isinstance(written, list)
    assert written[1]["versionChanges"] == [{"name": "torch", "checkpoint": "2.8.0", "attempt": "2.9.0"}]
    assert "versionChanges" not in written[0]


def test_corrected_fields_are_known_of_an_attempt_however_it_told() -> None:
    change = SpecChange(field="training.lr0", checkpoint="0.01", attempt="0.001")
    resuming = status(closed(1, step=57, committed_step=50), attempt(2))
    told = answer(50, 50, number=2, resumed=50).model_copy(update={"spec_changes": [change]})
    last = report("failed", attempt=2, step=50, resumed_from_step=50, spec_changes=[change])
    answered = observed(job(resuming), trainer=told)
    for seen in (answered, observed(job(resuming), pod(0, number=2, **ended(9, 1, last)))):
        assert progress.folded(resuming, seen, at(10)).attempts[1].spec_changes == [change]


def test_other_versions_are_known_of_an_attempt_that_never_answered() -> None:
    resuming = status(closed(1, step=57, committed_step=50), attempt(2))
    last = report("failed", attempt=2, step=50, resumed_from_step=50, version_changes=[TORCH])
    told = progress.folded(resuming, observed(job(resuming), pod(0, number=2, **ended(9, 1, last))), at(10))
    assert told.attempts[1].version_changes == [TORCH]


def test_numbers_are_rounded_to_what_is_worth_printing() -> None:
    told = answer(
        1, student_map=0.41234567, teacher_map=0.5, distillation_loss=0.015549247597725448, images_per_second=123.456
    )
    shown = progress.completed(told.progress)
    assert (shown.student_map, shown.teacher_map, shown.map_gap) == (0.4123, 0.5, 0.0877)
    assert (shown.distillation_loss, shown.images_per_second) == (0.0155, 123.5)


@pytest.mark.parametrize(("idle", "moved_at"), [(0.0, at(1000)), (12.7, at(988)), (1e11, at(1000 - 86400))])
def test_when_rank_0_last_moved_is_told_by_the_operators_clock(idle: float, moved_at: datetime) -> None:
    running = status(attempt(running_at=at(1), stepped_at=at(1), step=30))
    told = answer(30).model_copy(update={"state": "validating", "idle_seconds": idle})
    moved = progress.folded(running, observed(job(running), trainer=told), at(1000))
    assert moved.attempts[0].moved_at == moved_at


def test_mere_movement_is_written_at_most_every_five_seconds() -> None:
    old = status(attempt(moved_at=at(0)))
    assert not progress.worth_writing(old, status(attempt(moved_at=at(3))), 5)
    assert progress.worth_writing(old, status(attempt(moved_at=at(5))), 5)


def test_failures_without_progress_end_the_job_and_disruptions_do_not() -> None:
    limit = Recovery(max_restarts_without_progress=2)
    assert progress_guard.exceeded(status(failures_without_progress=2, restarts_without_progress=99), limit) is None
    assert progress_guard.exceeded(status(failures_without_progress=3), limit) is not None


def test_reports_of_a_newer_trainer_are_read() -> None:
    told = TrainerStatus.model_validate(
        {**starting(1).to_wire(), "state": "exporting", "new": 1, "progress": {"step": 4, "new": 2}}
    )
    assert (told.state, told.progress.step) == ("training", 4)
    text = '{"outcome": "failed", "reason": "NewReason", "attempt": 1, "new": {}, "progress": {"new": 1}}'
    assert TerminationMessage.model_validate_json(text).reason == Reason.TRAINER_ERROR
