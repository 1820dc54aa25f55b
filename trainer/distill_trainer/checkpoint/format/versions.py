"""What computes a training: a run that goes on with other versions of it need not be bitwise equal."""

from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Self


@dataclass(frozen=True)
class Versions:
    """None where a version is not known, as in checkpoints whose manifest does not say it."""

    torch: str
    ultralytics: str | None = None
    trainer: str | None = None

    @classmethod
    def present(cls, torch_version: str) -> Self:
        """The versions in this environment; PyTorch's own, for the writer process does not import it."""
        return cls(torch_version, _installed("ultralytics"), trainer_version())

    def changed_to(self, now: Self) -> dict[str, tuple[str, str]]:
        """The version here and the one `now`, by name, where both are known and differ."""
        after = asdict(now)
        pairs = {name: (before, after[name]) for name, before in asdict(self).items()}
        return {name: pair for name, pair in pairs.items() if None not in pair and pair[0] != pair[1]}


def trainer_version() -> str | None:
    """This trainer's own version; None when it runs from a source tree that is not installed."""
    return _installed("distill-operator")


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
