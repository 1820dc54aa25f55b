"""The progress bar of a run on this machine, as text."""

from distill_api.pod.report import TrainerStatus
from distill_api.status import Progress
from distill_cli.views import text
from distill_cli.views.job.curves import curves


def fraction(progress: Progress) -> float:
    """The finished share of all steps."""
    return min(1.0, progress.step / progress.steps) if progress.steps else 0.0


_ALWAYS, _ETA, _MAP, _SPEED, _LOSS = range(5)
"""What is shown beside a bar, by importance."""


def bar_text(status: TrainerStatus, last_epoch: str, room: int) -> tuple[str, str]:
    """What stands before the bar and after it, together at most `room` columns if possible: what matters least is left
    out. `last_epoch`: rank 0's line about the last finished epoch, or empty.
    """
    progress = status.progress
    name = f"epoch {min(progress.epoch + 1, progress.epochs)}/{progress.epochs}" if progress.epochs else status.state
    if status.state != "training":
        name = f"{name} {status.state}" if progress.epochs else status.state
    losses = {name: values[-1] for name, values in curves([last_epoch]).losses.items() if values}
    if progress.distillation_loss is not None:
        losses["dis"] = progress.distillation_loss
    parts = [(_ALWAYS, f"{100 * fraction(progress):.1f}%")]
    parts += [(_LOSS, f"{name} {value:.3g}") for name, value in losses.items()]
    if progress.student_map is not None:
        teacher = f" of {progress.teacher_map:.3f}" if progress.teacher_map is not None else ""
        parts.append((_MAP, f"mAP {progress.student_map:.3f}{teacher}"))
    if progress.images_per_second is not None:
        parts.append((_SPEED, f"{text.number(progress.images_per_second)} images/s"))
    if progress.eta_seconds is not None:
        parts.append((_ETA, f"ETA {text.duration(progress.eta_seconds)}"))
    return name, _fitting(parts, room - len(name))


def _fitting(parts: list[tuple[int, str]], room: int) -> str:
    """The parts in a line, without those that matter least where there is no room."""
    while len(line := "  ".join(part for _, part in parts)) > room and len(parts) > 1:
        least = max(rank for rank, _ in parts)
        parts = [part for part in parts if part[0] < least]
    return line
