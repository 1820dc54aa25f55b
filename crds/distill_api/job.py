"""The DistillJob, and how it is read from YAML."""

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
    """The fields of metadata that this project reads."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(pattern=JOB_NAME, max_length=JOB_NAME_LENGTH)
    """Name of the job: at most 52 lower case letters, digits and -, and a letter first."""
    namespace: str | None = None
    """Namespace of the job."""
    uid: str | None = None
    """Set by the API server."""
    generation: int | None = None
    """Set by the API server: incremented with each change of spec."""


class DistillJob(Model):
    """Distils a large, frozen YOLO teacher into a small student on several nodes, and resumes after preemption."""

    api_version: Literal["distilljob.dev/v1alpha1"] = "distilljob.dev/v1alpha1"
    kind: Literal["DistillJob"] = "DistillJob"
    metadata: Metadata
    spec: DistillJobSpec
    status: DistillJobStatus = DistillJobStatus()


class InvalidJob(ValueError):
    """An invalid DistillJob; the text lists every mistake with its field."""


def parse_job(document: dict[str, Any]) -> DistillJob:
    """Validate a YAML document as a DistillJob. Raises InvalidJob with one line per mistake."""
    try:
        return DistillJob.model_validate(document, by_alias=True, by_name=False)
    except ValidationError as error:
        raise InvalidJob("\n".join(explain(error, DistillJob))) from None


def read_job(text: str) -> DistillJob:
    """Read the only DistillJob in a YAML text, which may have other documents. Raises InvalidJob."""
    try:
        documents = [doc for doc in yamltext.load_all(text) if isinstance(doc, dict)]
    except yaml.YAMLError as error:
        raise InvalidJob(f"not a YAML file: {yamltext.problem(error)}") from None
    jobs = [doc for doc in documents if doc.get("kind") == KIND]
    if len(jobs) != 1:
        raise InvalidJob(f"expected one document of kind {KIND}, found {len(jobs)}")
    return parse_job(jobs[0])
