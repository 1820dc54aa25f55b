"""What a check finds, and where it looks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch


class NotRun(Exception):
    """A check, or a part of it, cannot run here; the message says why."""


@dataclass(frozen=True)
class Place:
    """The device that is checked, and a scratch folder."""

    kind: str
    """cuda, or cpu: the same checks in small, to try the program itself."""
    folder: Path

    @property
    def cuda(self) -> bool:
        """Whether GPUs are checked."""
        return self.kind == "cuda"

    @property
    def gpus(self) -> int:
        """Number of GPUs; 0 on CPUs."""
        return torch.cuda.device_count() if self.cuda else 0

    @property
    def ranks(self) -> int:
        """Ranks of the runs that the checks start: two, if there is a GPU for each."""
        return min(2, self.gpus) if self.cuda else 2

    @property
    def imgsz(self) -> int:
        """Size of the images of the steps that are measured."""
        return 640 if self.cuda else 64

    @property
    def batch(self) -> int:
        """Images of such a step."""
        return 16 if self.cuda else 4

    @property
    def profiles(self) -> tuple[str, ...]:
        """The profiles of the candidates, as words behind their names: exact and fast, which are the same on CPUs."""
        return ("", " fast") if self.cuda else ("",)

    @property
    def formats(self) -> tuple[str, ...]:
        """The student's 16-bit formats. CPUs only emulate fp16."""
        return ("bf16", "fp16") if self.cuda else ("bf16",)

    @property
    def timed(self) -> str:
        """The format of the steps that are timed in every profile."""
        return "bf16" if self.cuda else "fp32"

    def synchronize(self) -> None:
        """Wait until the GPU has done what was queued."""
        if self.cuda:
            torch.cuda.synchronize()


@dataclass
class Findings:
    """Figures and failures of a check. Every change is written to `file`, so that a check that is killed keeps them."""

    file: Path
    figures: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    not_run: str | None = None
    ended: bool = False

    def figure(self, name: str, value: Any) -> None:
        """Record a figure; numbers are rounded to four digits."""
        self.figures[name] = float(f"{value:.4g}") if isinstance(value, float) else value
        self.save()

    def expect(self, holds: bool, otherwise: str) -> None:
        """Record the failure `otherwise` unless `holds`."""
        if not holds:
            self.failures.append(otherwise)
            self.save()

    def run(self, check: Check, place: Place) -> None:
        """Run a check; an error is a failure."""
        try:
            check(place, self)
        except NotRun as why:
            self.not_run = str(why)
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            self.failures.append(f"{type(error).__name__}: {lines[0][:300]}")
            raise
        finally:
            self.ended = True
            self.save()

    def save(self) -> None:
        """Write everything found so far."""
        content = asdict(self)
        del content["file"]
        self.file.write_text(json.dumps(content))

    @classmethod
    def load(cls, file: Path) -> Findings:
        """What a check has written; empty if it came to nothing."""
        try:
            return cls(file, **json.loads(file.read_text()))
        except (OSError, ValueError):
            return cls(file)


Check = Callable[[Place, Findings], None]
