"""What the pods have, and where they run: accelerators, volumes, nodes."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from distill_api.base import Model
from distill_api.reading import quantity
from distill_api.spec.rules import across
from distill_api.spec.rules.rule import check

DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
TopologyKey = Annotated[
    str,
    Field(
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
        max_length=317,
    ),
]
Quantity = Annotated[
    str,
    BeforeValidator(quantity.written),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": quantity.PATTERN, "maxLength": 32}),
]
Quantities = Annotated[dict[str, Quantity], Field(max_length=16)]


class Accelerators(Model):
    """Accelerators of each pod."""

    resource: Annotated[str, Field(min_length=1, max_length=253)] = "nvidia.com/gpu"
    """Name of the accelerator's extended resource."""
    per_node: Annotated[int, Field(ge=0, le=64)] = 1
    """Accelerators per node, each with one training process. 0: train on CPUs with gloo."""
    processes_per_node: Annotated[int, Field(ge=1, le=64)] | None = None
    """Training processes per node. Default: perNode, or 1 if perNode is 0. On CUDA it must be perNode."""


class Resources(Model):
    """What the training container requests and may use, as in a container. Each resource by itself replaces what is
    requested by default."""

    requests: Quantities = {}
    """What a node must have for the container, such as cpu: 8 and memory: 32Gi."""
    limits: Quantities = {}
    """What the container may use at most. A resource with a limit and no request is requested up to the limit."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        return check(self, across.RESOURCES)


class DataCache(Model):
    """Copies of the images on each node. The first process of a node that reads an image makes its copy; after that all
    processes of the node read the copy. What is trained does not change."""

    medium: Literal["node", "ram"] = "node"
    """node: the node's disk, of which the pod requests size as ephemeral-storage. ram: memory, which counts to the
    container's: size is added to its default request, but a limit must have room for it."""
    size: Quantity
    """How much copies may take on each node, such as 200Gi. Images for which there is no room are read from the data
    volume every time."""


class Scheduling(Model):
    """Where the pods may run. Each pod of an attempt has a node of its own in any case."""

    priority_class_name: str | None = None
    """PriorityClass of the pods."""
    node_selector: dict[str, str] | None = None
    """Labels that nodes must have to run the pods."""
    tolerations: list[dict[str, Any]] | None = None
    """Tolerations of the pods, as in a pod."""
    required_topology: TopologyKey | None = None
    """Node label, such as topology.kubernetes.io/zone, whose value must be the same on all nodes of an attempt, so that
    its pods are near each other. The scheduler takes the value of the node that the first pod gets, without counting
    whether there is room for all; an attempt without room is withdrawn and tried again."""
    preferred_topology: TopologyKey | None = None
    """Node label, such as that of a rack, whose value should be the same on as many nodes of an attempt as possible."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        return check(self, across.SCHEDULING)


class SecretName(Model):
    """A Secret in the job's namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the Secret."""
