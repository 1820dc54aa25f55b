"""The DistillJob, and how it is read from YAML."""

from collections.abc import Mapping
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, Field, ValidationError

from distill_api.base import Model
from distill_api.constants import JOB_NAME, JOB_NAME_LENGTH, KIND
from distill_api.reading import yamltext
from distill_api.reading.mistakes import explain, nearest
from distill_api.spec.fields import DistillJobSpec
from distill_api.spec.rules.pod_template import refusals
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
    labels: dict[str, str] | None = None
    """Labels of the job; those of Kueue are those of its attempts' Jobs, too."""


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
    spec = document.get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    mistakes = refusals(template if isinstance(template, dict) else None)
    try:
        job = DistillJob.model_validate(document, by_alias=True, by_name=False)
    except ValidationError as error:
        raise InvalidJob("\n".join([*explain(error, DistillJob), *mistakes])) from None
    if mistakes:
        raise InvalidJob("\n".join(mistakes))
    return job


def read_stored(raw: Mapping[str, Any]) -> DistillJob:
    """The job that the API server has stored. Fields and words of newer versions are no mistakes here.

    Raises ValidationError if a field has a type or a value that this version cannot read.
    """
    return DistillJob.model_validate(raw, extra="ignore", by_alias=True, by_name=False)


def read_job(text: str) -> DistillJob:
    """Read the only DistillJob in a YAML text, which may have other documents. Raises InvalidJob."""
    return parse_job(read_document(text))


def read_document(text: str) -> dict[str, Any]:
    """The only DistillJob in a YAML text, as it is written there. Raises InvalidJob if there is not exactly one."""
    try:
        documents = [doc for doc in yamltext.load_all(text) if doc is not None]
    except yaml.YAMLError as error:
        raise InvalidJob(f"not a YAML file: {yamltext.problem(error)}") from None
    jobs = [doc for doc in documents if isinstance(doc, dict) and doc.get("kind") == KIND]
    if len(jobs) != 1:
        what = f": {', '.join(map(_what, documents))}" if documents and not jobs else ""
        raise InvalidJob(f"expected one document of kind {KIND}, found {len(jobs)}{what}")
    return jobs[0]


def _what(document: Any) -> str:
    """What a document is that is no DistillJob."""
    if not isinstance(document, dict):
        return "a list" if isinstance(document, list) else "plain text"
    kind = document.get("kind")
    if not kind:
        return "a document without kind"
    if kind == "List":
        return "a List, whose items must be documents of their own"
    return f"kind {kind}" + ("; did you mean DistillJob?" if nearest(str(kind), [KIND]) else "")
