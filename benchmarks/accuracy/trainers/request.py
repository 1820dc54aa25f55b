"""What a training process is asked for, and what it answers, as JSON files in the run's folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.accuracy.data.datasets import CONFIG, dataset
from benchmarks.accuracy.run import Run

REQUEST, ANSWER, LOG = "request.json", "answer.json", "log.txt"


@dataclass(frozen=True)
class Request:
    """A run with the files that it needs."""

    folder: str
    """For everything that the run writes."""
    models: str
    """Folder of the weights that finished runs left, by digest."""
    data: str
    """Folder of the data set."""
    digest: str
    task: str
    trainer: str
    student: str
    """An architecture, or a file in `models`."""
    teacher: str | None
    """A file in `models`."""
    training: dict[str, Any]
    spec: dict[str, Any]
    switches: list[str]

    @classmethod
    def of(cls, run: Run, work: Path) -> Request:
        """The request for a run, with its data set generated and its folder made."""
        folder, models = work / "runs" / run.digest, work / "models"
        for path in (folder, models):
            path.mkdir(parents=True, exist_ok=True)
        return cls(
            folder=str(folder),
            models=str(models),
            data=str(dataset(work, run.data)),
            digest=run.digest,
            task=run.data.task,
            trainer=run.trainer,
            student=run.student if isinstance(run.student, str) else weights(run.student),
            teacher=weights(run.teacher) if run.teacher else None,
            training={"seed": run.seed, "imgsz": run.data.imgsz} | dict(run.training),
            spec=dict(run.spec),
            switches=list(run.switches),
        )

    @classmethod
    def read(cls, path: Path) -> Request:
        """Read a request."""
        return cls(**json.loads(path.read_text()))

    def write(self) -> Path:
        """Write the request into its folder."""
        path = Path(self.folder) / REQUEST
        path.write_text(json.dumps(asdict(self), indent=1))
        return path

    @property
    def config(self) -> Path:
        """The data set's YAML file."""
        return Path(self.data) / CONFIG

    @property
    def kept(self) -> Path:
        """Where the last weights are kept after the run."""
        return Path(self.models) / f"{self.digest}.pt"


def weights(run: Run) -> str:
    """File name of the weights that a run leaves."""
    return f"{run.digest}.pt"
