"""A DistillJob as the API server has it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from pydantic import ValidationError

from distill_api.constants import ConditionType, Phase
from distill_api.job import DistillJob, read_stored
from distill_api.reading.mistakes import explain
from distill_api.spec.fields import DistillJobSpec
from distill_api.status import Condition, DistillJobStatus
from distill_client.apiserver.kinds import Object
from distill_client.errors import ClientError


@dataclass(frozen=True)
class Job:
    """A stored DistillJob: `raw` is everything, `spec` and `status` are the contract's models."""

    raw: Object

    @property
    def name(self) -> str:
        """Name of the job."""
        return str(self.raw["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Namespace of the job."""
        return str(self.raw["metadata"].get("namespace") or "default")

    @property
    def uid(self) -> str:
        """UID of the job."""
        return str(self.raw["metadata"].get("uid") or "")

    @property
    def generation(self) -> int:
        """Counts the changes of spec."""
        return int(self.raw["metadata"].get("generation") or 1)

    @property
    def created(self) -> datetime | None:
        """When it was created (the API server's clock)."""
        text = self.raw["metadata"].get("creationTimestamp")
        return datetime.fromisoformat(text) if text else None

    @property
    def claims(self) -> dict[str, str]:
        """Its claims by volume (checkpoints, data, models): those that spec.volumes names or has templates for."""
        return self.spec.volumes.claims(self.name)

    @property
    def deleting(self) -> bool:
        """Whether its deletion was asked for."""
        return bool(self.raw["metadata"].get("deletionTimestamp"))

    @property
    def spec(self) -> DistillJobSpec:
        """What the user asked for. Raises ClientError if this version cannot read it."""
        return self._model.spec

    @property
    def status(self) -> DistillJobStatus:
        """What the operator says of it. Raises ClientError if this version cannot read it."""
        return self._model.status

    def condition(self, kind: ConditionType) -> Condition | None:
        """The condition of a type, if the operator has set it."""
        return next((condition for condition in self.status.conditions if condition.type == kind), None)

    @property
    def committed_step(self) -> int:
        """The newest step that is known to be committed; 0 before the first. An attempt's end may know of a later one
        than rank 0's last report.
        """
        progress, attempts = self.status.progress, self.status.attempts
        known = [progress.committed_step if progress else 0]
        known += [max(attempt.committed_step or 0, attempt.resumed_from_step or 0) for attempt in attempts]
        return max(known)

    @property
    def phase(self) -> Phase:
        """status.phase, also of a job that this version cannot read."""
        phase: Phase = Phase.read((self.raw.get("status") or {}).get("phase") or "Pending")
        return phase

    @property
    def readable(self) -> bool:
        """Whether spec and status can be read."""
        try:
            return self._model is not None
        except ClientError:
            return False

    @cached_property
    def _model(self) -> DistillJob:
        try:
            return read_stored({**self.raw, "status": self.raw.get("status") or {}})
        except ValidationError as error:
            raise ClientError(
                f"DistillJob {self.name} cannot be read by this version: {'; '.join(explain(error, DistillJob))}",
                "use a newer distill",
            ) from None
