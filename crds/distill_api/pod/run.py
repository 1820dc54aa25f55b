"""RunConfig: the configuration of a training container, in one environment variable."""

from typing import Annotated, Any

from pydantic import Field

from distill_api.base import Count, Model
from distill_api.constants import Path
from distill_api.spec.fields import DistillJobSpec


class Directories(Model):
    """Where the volumes are mounted, or the directories of a job without Kubernetes."""

    checkpoints: str = Path.CHECKPOINTS
    """Root of the checkpoints volume."""
    data: str = Path.DATA
    """Root of the data volume."""
    models: str | None = Path.MODELS
    """Root of the models volume, if the job has one."""
    cache: str | None = None
    """Folder on the node for copies of images, if the job has a data cache."""
    termination: str | None = Path.TERMINATION
    """File for the termination message; null for none."""


class RunConfig(Model):
    """Configuration of one attempt; the same in all its pods."""

    job: str
    """Name of the DistillJob. Results are written below <checkpoints>/<job>/."""
    uid: str
    """UID of the DistillJob. Checkpoints of another job with the same name are not used."""
    attempt: Annotated[int, Field(ge=1)]
    """Number of the attempt, which also fences earlier ones."""
    committed_step: Count = 0
    """Newest step that earlier attempts have committed, as far as is known: without a checkpoint there is no start."""
    nodes: Annotated[int, Field(ge=1)]
    """Pods of this attempt."""
    processes_per_node: Annotated[int, Field(ge=1)] | None = None
    """Ranks on each node. Default: as in the spec. `distill run` puts all ranks on one machine."""
    rendezvous: str
    """host:port of the torchrun store on node 0."""
    spec: DistillJobSpec
    """The job's specification, with the fields that a recipe chose in place of its name."""
    recipe: dict[str, Any] | None = None
    """The fields of spec that recipe: auto chose; null for other recipes."""
    directories: Directories = Directories()
    """Where the volumes are mounted."""

    def to_json(self) -> str:
        """The JSON for a training container, without the fields that have their default.

        A trainer that is older than its operator so gets a field that it does not know only if the job uses it.
        """
        return self.model_dump_json(by_alias=True, exclude_defaults=True)

    @property
    def local_address(self) -> str:
        """The loopback address, if all ranks meet there: nobody else needs to reach them. Else empty."""
        host, _, _ = self.rendezvous.rpartition(":")
        return host if host.startswith("127.") else ""

    @property
    def world_size(self) -> int:
        """Ranks of this attempt."""
        return self.nodes * self.local_world_size

    @property
    def local_world_size(self) -> int:
        """Ranks on each node of this attempt."""
        return self.processes_per_node or self.spec.processes_per_node
