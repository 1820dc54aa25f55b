"""What computes a training: a run that goes on with other versions of it need not be bitwise equal."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Self


@dataclass(frozen=True)
class Versions:
    """None where a version is not known, as in checkpoints whose manifest does not say it."""

    torch: str
    ultralytics: str | None = None
    trainer: str | None = None

    @classmethod
    def present(cls) -> Self:
        """The versions in this environment."""
        import torch  # the writer process reads manifests without it

        return cls(torch.__version__, _installed("ultralytics"), trainer_version())


def trainer_version() -> str | None:
    """This trainer's own version; None when it runs from a source tree that is not installed."""
    return _installed("distill-operator")


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
