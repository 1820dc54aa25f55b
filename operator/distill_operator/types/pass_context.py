"""The inputs of the decisions in one pass."""

from dataclasses import dataclass, replace
from datetime import datetime

from distill_api.constants import Phase
from distill_api.spec.fields import DistillJobSpec
from distill_api.status import DistillJobStatus
from distill_operator.types.observed import Observed
from distill_operator.types.settings import Settings


@dataclass(frozen=True)
class PassContext:
    """What was observed of a job, the status as decided so far, the time, and the settings."""

    observed: Observed
    status: DistillJobStatus
    now: datetime
    settings: Settings

    @property
    def spec(self) -> DistillJobSpec:
        """The job's specification."""
        return self.observed.job.spec

    def with_status(self, status: DistillJobStatus) -> "PassContext":
        """The same context with this status."""
        return replace(self, status=status)

    def in_phase(self, phase: Phase) -> DistillJobStatus:
        """The status so far, in this phase."""
        return self.status.model_copy(update={"phase": phase})
