"""Versions of the packages that compute the training. With other versions, a resumed run may differ bitwise."""

from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Self


@dataclass(frozen=True)
class Versions:
    """None where a version is unknown, as in checkpoints whose manifest does not have it."""

    torch: str
    ultralytics: str | None = None
    trainer: str | None = None

    @classmethod
    def present(cls, torch_version: str) -> Self:
        """The installed versions. PyTorch's is passed in because this module must not import it."""
        return cls(torch_version, _installed("ultralytics"), trainer_version())

    def changed_to(self, now: Self) -> dict[str, tuple[str, str]]:
        """The versions that differ and are both known: name -> (this version, version in `now`)."""
        after = asdict(now)
        pairs = {name: (before, after[name]) for name, before in asdict(self).items()}
        return {name: pair for name, pair in pairs.items() if None not in pair and pair[0] != pair[1]}


def trainer_version() -> str | None:
    """This trainer's version; None if it runs from a source tree that is not installed."""
    return _installed("distill-operator")


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
