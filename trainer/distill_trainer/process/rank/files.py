"""How the processes of a node talk without a network: small files in a folder that lives as long as the launcher."""

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
"""Environment variable that tells a worker where the folder is."""


def read_run(environ: Mapping[str, str]) -> RunConfig:
    """The RunConfig of the environment. Raises Permanent naming what is missing or wrong."""
    text = environ.get(Env.RUN)
    if not text:
        raise Permanent(
            Reason.CONFIG_INVALID,
            f"the environment variable {Env.RUN} is not set; the operator or `distill run` sets it",
        )
    try:
        return RunConfig.model_validate_json(text)
    except ValidationError as error:
        mistakes = "; ".join(explain(error, RunConfig))
        raise Permanent(Reason.CONFIG_INVALID, f"{Env.RUN} is no valid RunConfig: {mistakes}") from None


@dataclass(frozen=True)
class RankFiles:
    """The files of one rank in the folder."""

    folder: Path
    local_rank: int

    @property
    def status_file(self) -> Path:
        """A recent copy of the rank's /status."""
        return self.folder / f"status-{self.local_rank}.json"

    @property
    def heartbeat_file(self) -> Path:
        """The rank's heartbeat; see heartbeat.py."""
        return self.folder / f"heartbeat-{self.local_rank}"

    @property
    def report_file(self) -> Path:
        """What the rank says of its own end."""
        return self.folder / f"report-{self.local_rank}.json"

    def write_report(self, report: RankReport) -> None:
        """Write the report; it is seen whole or not at all. A second one is ignored. Raises OSError."""
        temporary = self.report_file.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(report.model_dump_json(by_alias=True), encoding="utf-8")
        with contextlib.suppress(FileExistsError):
            os.link(temporary, self.report_file)
        temporary.unlink()

    def report(self) -> RankReport | None:
        """The rank's report, if it has left one."""
        text = _read(self.report_file)
        return None if text is None else RankReport.model_validate_json(text)

    def status(self) -> TrainerStatus | None:
        """The rank's last status copy, at most about a second older than its end."""
        text = _read(self.status_file)
        return None if text is None else TrainerStatus.model_validate_json(text)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
