"""The DistillJob itself, and reading one from a user's YAML."""

from typing import Any, Literal

import yaml
from pydantic import ConfigDict, Field, ValidationError

from distill_api.base import Model
from distill_api.constants import JOB_NAME, JOB_NAME_LENGTH, KIND
from distill_api.reading import yamltext
from distill_api.reading.mistakes import explain
from distill_api.spec.fields import DistillJobSpec
from distill_api.status import DistillJobStatus


class Metadata(Model):
    """The part of metadata that this project reads; Kubernetes owns the rest."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(pattern=JOB_NAME, max_length=JOB_NAME_LENGTH)
    """Name of the job: lower case letters, digits and -, a letter first, at most 52 characters."""
    namespace: str | None = None
    """Namespace of the job."""
    uid: str | None = None
    """Set by the API server."""
    generation: int | None = None
    """Set by the API server: counts changes of spec."""


class DistillJob(Model):
    """Distils a large frozen YOLO teacher into a small student on many nodes, and survives preemption."""

    api_version: Literal["distilljob.dev/v1alpha1"] = "distilljob.dev/v1alpha1"
    kind: Literal["DistillJob"] = "DistillJob"
    metadata: Metadata
    spec: DistillJobSpec
    status: DistillJobStatus = DistillJobStatus()


class InvalidJob(ValueError):
    """A DistillJob that cannot be accepted; the text lists every mistake with its place."""


def parse_job(document: dict[str, Any]) -> DistillJob:
    """Make a DistillJob of a YAML document. Raises InvalidJob with one line per mistake."""
    try:
        return DistillJob.model_validate(document, by_alias=True, by_name=False)
    except ValidationError as error:
        raise InvalidJob("\n".join(explain(error, DistillJob))) from None


def read_job(text: str) -> DistillJob:
    """Find the one DistillJob in a YAML text, which may hold other documents. Raises InvalidJob."""
    try:
        documents = [doc for doc in yamltext.load_all(text) if isinstance(doc, dict)]
    except yaml.YAMLError as error:
        raise InvalidJob(f"not a YAML file: {yamltext.problem(error)}") from None
    jobs = [doc for doc in documents if doc.get("kind") == KIND]
    if len(jobs) != 1:
        raise InvalidJob(f"expected one document of kind {KIND}, found {len(jobs)}")
    return parse_job(jobs[0])
