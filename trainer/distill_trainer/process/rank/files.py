"""Files through which a node's ranks and launcher communicate, in a folder that the launcher creates and deletes."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from distill_api.constants import Env
from distill_api.errors import Permanent
from distill_api.pod.report import TrainerStatus
from distill_api.pod.run import RunConfig
from distill_api.reading.mistakes import explain
from distill_api.reasons import Reason
from distill_trainer.process.outcome import RankReport

FOLDER_VARIABLE: Final = "DISTILL_RANK_FILES"
"""Environment variable with the path of the folder."""


def read_run_config(environ: Mapping[str, str]) -> RunConfig:
    """Read the RunConfig from the environment. Raises Permanent naming what is missing or wrong."""
    text = environ.get(Env.RUN)
    if not text:
        raise Permanent(
            Reason.CONFIG_INVALID,
            f"environment variable {Env.RUN} is not set; start the trainer with a DistillJob or `distill run`",
        )
    labels = {"attempt": environ.get(Env.ATTEMPT), "committed_step": environ.get(Env.COMMITTED_STEP)}
    try:
        run = RunConfig.model_validate_json(text)
        return RunConfig.model_validate(run.model_dump() | {name: value for name, value in labels.items() if value})
    except ValidationError as error:
        mistakes = "; ".join(explain(error, RunConfig))
        if all(mistake["type"] == "extra_forbidden" for mistake in error.errors()):
            raise Permanent(
                Reason.TRAINER_TOO_OLD,
                f"this trainer does not know every field of the job; use a newer image, or remove them: {mistakes}",
            ) from None
        raise Permanent(Reason.CONFIG_INVALID, f"{Env.RUN} is not a valid RunConfig: {mistakes}") from None


@dataclass(frozen=True)
class RankFiles:
    """The files of one rank."""

    folder: Path
    local_rank: int

    @property
    def status_file(self) -> Path:
        """A copy of the rank's /status, about one second old."""
        return self.folder / f"status-{self.local_rank}.json"

    @property
    def heartbeat_file(self) -> Path:
        """The rank's heartbeat; see heartbeat.py."""
        return self.folder / f"heartbeat-{self.local_rank}"

    @property
    def report_file(self) -> Path:
        """How the rank ended."""
        return self.folder / f"report-{self.local_rank}.json"

    def write_report(self, report: RankReport) -> None:
        """Write the report atomically. A second report is ignored. Raises OSError."""
        temporary = self.report_file.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(report.model_dump_json(by_alias=True), encoding="utf-8")
        with contextlib.suppress(FileExistsError):
            os.link(temporary, self.report_file)
        temporary.unlink()

    def report(self) -> RankReport | None:
        """The rank's report; None if there is none."""
        text = _read(self.report_file)
        return None if text is None else RankReport.model_validate_json(text)

    def status(self) -> TrainerStatus | None:
        """The rank's last status; None if there is none. At its end it is at most about one second old."""
        text = _read(self.status_file)
        return None if text is None else TrainerStatus.model_validate_json(text)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
