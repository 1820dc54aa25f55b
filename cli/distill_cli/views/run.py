"""The progress bar of a run on this machine, as text."""

from distill_api.pod.report import TrainerStatus
from distill_api.status import Progress
from distill_cli.views import text
from distill_cli.views.curves import curves


def fraction(progress: Progress) -> float:
    """The finished share of all steps."""
    return min(1.0, progress.step / progress.steps) if progress.steps else 0.0


def bar_text(status: TrainerStatus, last_epoch: str) -> tuple[str, str]:
    """What stands before the bar and after it. `last_epoch`: rank 0's line about the last finished epoch, or empty."""
    progress = status.progress
    name = f"epoch {min(progress.epoch + 1, progress.epochs)}/{progress.epochs}" if progress.epochs else status.state
    if status.state != "training":
        name = f"{name} {status.state}" if progress.epochs else status.state
    losses = {name: values[-1] for name, values in curves([last_epoch]).losses.items() if values}
    if progress.distillation_loss is not None:
        losses["dis"] = progress.distillation_loss
    parts = [f"{100 * fraction(progress):.1f}%"]
    parts += [f"{name} {value:.3g}" for name, value in losses.items()]
    if progress.student_map is not None:
        teacher = f" of {progress.teacher_map:.3f}" if progress.teacher_map is not None else ""
        parts.append(f"mAP {progress.student_map:.3f}{teacher}")
    if progress.images_per_second is not None:
        parts.append(f"{text.number(progress.images_per_second)} images/s")
    if progress.eta_seconds is not None:
        parts.append(f"ETA {text.duration(progress.eta_seconds)}")
    return name, "  ".join(parts)
