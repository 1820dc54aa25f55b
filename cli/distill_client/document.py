"""What a user may give as a job, and the document that is sent for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_api.job import DistillJob, InvalidJob, parse_job, read_document
from distill_client.apiserver.kinds import Object
from distill_client.errors import ClientError, Refused

JobSource = str | os.PathLike[str] | Mapping[str, Any] | DistillJob
"""A YAML file, a document, or the contract's model."""


def document(job: JobSource, namespace: str) -> Object:
    """The document of a valid job, in the namespace that it names, or else in `namespace`.

    Only the fields that were given are in it, so that defaults stay the API server's. Raises ClientError, and Refused
    with one cause for each mistake.
    """
    if isinstance(job, DistillJob):
        found = job.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"status"})
        found |= {"apiVersion": job.api_version, "kind": job.kind}
    elif isinstance(job, Mapping):
        found = dict(job)
    else:
        found = _read(Path(job))
    metadata = found.get("metadata")
    wrong = isinstance(metadata, dict) and metadata.get("namespace") not in (None, namespace)
    try:
        parse_job(found)
    except InvalidJob as error:
        lines = tuple(str(error).splitlines())
        raise Refused(f"the job is invalid: {'; '.join(lines)}", "", lines) from None
    if wrong:
        raise Refused(
            f"the job is for namespace {found['metadata']['namespace']}, not {namespace}",
            f"use -n {found['metadata']['namespace']}, or remove metadata.namespace",
        )
    sent = {name: value for name, value in found.items() if name != "status"}
    return {**sent, "metadata": {**found["metadata"], "namespace": namespace}}


def _read(file: Path) -> Object:
    try:
        return read_document(file.expanduser().read_text(encoding="utf-8"))
    except InvalidJob as error:
        raise Refused(f"{file}: {error}", "", tuple(str(error).splitlines())) from None
    except UnicodeDecodeError:
        raise Refused(f"{file}: not a YAML file: not UTF-8 text") from None
    except OSError as error:
        raise ClientError(f"{file}: {error.strerror}") from None
