"""Paths of a job's files on the checkpoints volume, laid out as in Ultralytics."""

from dataclasses import dataclass
from pathlib import Path

from distill_api.constants import JobFile
from distill_api.pod.run import RunConfig


@dataclass(frozen=True)
class RunFiles:
    """Paths of a job's files on the checkpoints volume."""

    root: Path

    @classmethod
    def of(cls, run: RunConfig) -> "RunFiles":
        """The files of `run`'s job, in <checkpoints volume>/<job name>/."""
        return cls(Path(run.directories.checkpoints) / run.job)

    @property
    def checkpoints(self) -> Path:
        """Folder of resumable checkpoints."""
        return self.root / JobFile.CHECKPOINTS

    @property
    def weights(self) -> Path:
        """Folder of the student's weights."""
        return self.best.parent

    @property
    def best(self) -> Path:
        """Weights of the epoch with the best validation fitness."""
        return self.root / JobFile.BEST

    @property
    def last(self) -> Path:
        """Weights of the last epoch that was validated."""
        return self.root / JobFile.LAST

    @property
    def results_csv(self) -> Path:
        """One row per epoch."""
        return self.root / JobFile.RESULTS

    @property
    def labels(self) -> Path:
        """Folder of the label file, from which all ranks map the labels."""
        return self.root / "labels"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's event files."""
        return self.root / "tensorboard"

    @property
    def compiled(self) -> Path:
        """Folder of what torch.compile has made, for later attempts."""
        return self.root / "compiled"

    @property
    def args_yaml(self) -> Path:
        """Arguments of the run in Ultralytics' format."""
        return self.root / "args.yaml"
