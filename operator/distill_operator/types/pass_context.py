"""What the decisions of one pass are made from."""

from dataclasses import dataclass, replace
from datetime import datetime

from distill_api.constants import Phase
from distill_api.spec.fields import DistillJobSpec
from distill_api.status import DistillJobStatus
from distill_operator.types.observed import Observed
from distill_operator.types.settings import Settings


@dataclass(frozen=True)
class PassContext:
    """A job as it was seen, the status as decided so far, the time, and the installation's tuning."""

    observed: Observed
    status: DistillJobStatus
    now: datetime
    settings: Settings

    @property
    def spec(self) -> DistillJobSpec:
        """What the user asks for."""
        return self.observed.job.spec

    def with_status(self, status: DistillJobStatus) -> "PassContext":
        """The same context with a further decided status."""
        return replace(self, status=status)

    def in_phase(self, phase: Phase) -> DistillJobStatus:
        """The status so far, in this phase."""
        return self.status.model_copy(update={"phase": phase})
