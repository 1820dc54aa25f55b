"""RunConfig: all that a training container is told, in one environment variable."""

from typing import Annotated

from pydantic import Field

from distill_api.base import Model
from distill_api.constants import Path
from distill_api.spec.fields import DistillJobSpec


class Directories(Model):
    """Where the volumes are mounted; other places when the job runs without Kubernetes."""

    checkpoints: str = Path.CHECKPOINTS
    """Root of the checkpoints volume."""
    data: str = Path.DATA
    """Root of the data volume."""
    models: str | None = Path.MODELS
    """Root of the models volume, when there is one."""
    termination: str | None = Path.TERMINATION
    """File for the termination message; null prints it nowhere."""


class RunConfig(Model):
    """One attempt of one job, as every pod of the gang sees it."""

    job: str
    """Name of the DistillJob; results are written below <checkpoints>/<job>/."""
    uid: str
    """UID of the DistillJob: a checkpoint of another job of the same name is never resumed from."""
    attempt: Annotated[int, Field(ge=1)]
    """Number of the attempt; also the fence against earlier ones."""
    nodes: Annotated[int, Field(ge=1)]
    """Pods of this attempt."""
    processes_per_node: Annotated[int, Field(ge=1)] | None = None
    """Ranks on each node; default: as the spec says. `distill run` puts all ranks on one machine."""
    rendezvous: str
    """host:port of node 0's torchrun store."""
    spec: DistillJobSpec
    """The job's specification."""
    directories: Directories = Directories()
    """Where the volumes are mounted."""

    @property
    def world_size(self) -> int:
        """Ranks of this attempt."""
        return self.nodes * self.local_world_size

    @property
    def local_world_size(self) -> int:
        """Ranks on each node of this attempt."""
        return self.processes_per_node or self.spec.processes_per_node
