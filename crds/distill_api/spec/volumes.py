"""Where checkpoints, data and models are: claims, and for what is only read also OCI images and emptyDirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from distill_api.base import Model
from distill_api.spec.pods import DnsLabel, Quantity
from distill_api.spec.rules.rule import Rule, check


def _one_claim(volume: Volume) -> bool:
    return (volume.claim_name is None) != (volume.claim_template is None)


def _one_source(volume: SourceVolume) -> bool:
    sources = (volume.claim_name, volume.claim_template, volume.image, volume.empty_dir)
    return sum(source is not None for source in sources) == 1


VOLUME: Sequence[Rule] = (
    Rule(
        "has(self.claimName) != has(self.claimTemplate)",
        "give either claimName (an existing claim) or claimTemplate (a claim to create), and not both",
        _one_claim,
    ),
)

SOURCE_VOLUME: Sequence[Rule] = (
    Rule(
        "[has(self.claimName), has(self.claimTemplate), has(self.image), has(self.emptyDir)].exists_one(given, given)",
        "give exactly one of claimName (an existing claim), claimTemplate (a claim to create), image (an OCI image) and"
        " emptyDir (filled by an init container)",
        _one_source,
    ),
)


class ClaimResources(Model):
    """Requested size of a claim."""

    requests: dict[Literal["storage"], str]
    """For example storage: 10Gi."""


class ClaimTemplate(Model):
    """A PersistentVolumeClaim that the operator creates for the job."""

    storage_class_name: str | None = None
    """Storage class; default: the cluster's default class."""
    access_modes: Annotated[
        list[Literal["ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany", "ReadWriteOncePod"]],
        Field(min_length=1),
    ] = ["ReadWriteMany"]
    """Access modes. Jobs with more than one node need ReadWriteMany."""
    resources: ClaimResources
    """Size of the volume."""


class Volume(Model):
    """A volume: an existing claim, or a template for a claim."""

    claim_name: DnsLabel | None = None
    """Name of an existing PersistentVolumeClaim in the job's namespace."""
    claim_template: ClaimTemplate | None = None
    """Template for a claim that the operator creates. It is deleted with the job, unless
    persistentVolumeClaimRetentionPolicy retains it."""
    sub_path: str | None = None
    """Directory inside the volume to use instead of its root."""

    @property
    def is_claim(self) -> bool:
        """Whether the files are on a claim."""
        return True

    def claim(self, job: str, volume: str) -> str:
        """Name of the claim: the existing one, or the one from the template. `volume`: checkpoints, data or models."""
        return self.claim_name or f"{job}-{volume}"

    @model_validator(mode="after")
    def _check(self) -> Self:
        return check(self, VOLUME)


class ImageSource(Model):
    """Files of an OCI image or artifact, as a Kubernetes image volume (Kubernetes 1.35, or 1.33 with the feature gate
    ImageVolume; containerd 2.1 or CRI-O 1.31). A node pulls it once, with spec.imagePullSecrets."""

    reference: Annotated[str, Field(min_length=1, max_length=1024)]
    """Image with the files, such as registry.example.com/coco:2017. With a digest, all attempts have the same files."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """As imagePullPolicy of a container. Default: Always for the tag latest, else IfNotPresent."""


class EmptyDir(Model):
    """A volume on the node's disk that is empty at the start of each pod."""

    size_limit: Quantity | None = None
    """A pod that stores more is evicted. Default: no limit but the disk's."""


class SourceVolume(Volume):
    """A volume that is only read: a claim, an image, or an emptyDir that an init container of template fills."""

    image: ImageSource | None = None
    """OCI image or artifact with the files."""
    empty_dir: EmptyDir | None = None
    """A volume of the pod that an init container in template fills before the training starts. Each pod of each attempt
    fills its own."""

    @property
    def is_claim(self) -> bool:
        """Whether the files are on a claim."""
        return self.image is None and self.empty_dir is None

    @model_validator(mode="after")
    def _check(self) -> Self:
        return check(self, SOURCE_VOLUME)


class Volumes(Model):
    """The volumes of the job. They may share a claim."""

    checkpoints: Volume
    """Checkpoints and results, written below <job name>/."""
    data: SourceVolume
    """The data set; mounted read-only."""
    models: SourceVolume | None = None
    """The .pt files of student and teacher; mounted read-only."""

    def by_name(self) -> dict[str, Volume]:
        """In mount order; without models if the job has no such volume."""
        found = {"checkpoints": self.checkpoints, "data": self.data, "models": self.models}
        return {name: volume for name, volume in found.items() if volume is not None}

    def claims(self, job: str) -> dict[str, str]:
        """The claim's name by volume, of those volumes that are on a claim."""
        return {name: volume.claim(job, name) for name, volume in self.by_name().items() if volume.is_claim}


class ClaimRetentionPolicy(Model):
    """What happens to claims that the operator creates from claim templates. Existing claims are never deleted."""

    when_deleted: Literal["Delete", "Retain"] = "Delete"
    """What happens to them when the DistillJob is deleted, also by ttlSecondsAfterFinished. Delete: Kubernetes deletes
    them, with all checkpoints and results in them. Retain: they stay, and another job can name them with claimName.
    No claim is deleted while its job exists."""
