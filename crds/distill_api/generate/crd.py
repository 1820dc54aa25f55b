"""Generates the CRD from the models: `python -m distill_api.generate.crd > crds/distilljob.yaml`."""

import hashlib
import json
import sys
from typing import Any

import yaml

from distill_api.constants import (
    GROUP,
    JOB_NAME,
    JOB_NAME_LENGTH,
    KIND,
    PLURAL,
    SCHEMA_HASH,
    SHORT_NAME,
    SINGULAR,
    VERSION,
)
from distill_api.generate.pod_template import pod_template, validations
from distill_api.job import DistillJob
from distill_api.spec.distillation import DISTILLATION, UNTIL
from distill_api.spec.fields import DistillJobSpec
from distill_api.spec.inherit import INHERIT
from distill_api.spec.rules import across, corrections
from distill_api.spec.rules.exit_codes import EXIT_CODES
from distill_api.spec.volumes import SOURCE_VOLUME, VOLUME
from distill_api.status import LIST_KEYS, DistillJobStatus

Schema = dict[str, Any]

UNOBSERVED = -1
"""status.observedGeneration until the operator has seen the job: kstatus takes a job without one for finished."""

COLUMNS = (
    ("Phase", "string", ".status.phase", 0),
    ("Nodes", "string", ".status.nodes", 0),
    ("Epoch", "integer", ".status.progress.epoch", 0),
    ("mAP", "number", ".status.progress.studentMap", 0),
    ("Gap", "number", ".status.progress.mapGap", 0),
    ("Dis-Loss", "number", ".status.progress.distillationLoss", 0),
    ("ETA", "string", ".status.progress.eta", 0),
    ("Restarts", "string", ".status.restarts", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Step", "integer", ".status.progress.step", 1),
    ("Committed", "integer", ".status.progress.committedStep", 1),
    ("Images/s", "number", ".status.progress.imagesPerSecond", 1),
)

SCALE = {"specReplicasPath": ".spec.nodes", "statusReplicasPath": ".status.replicas"}

_KEPT = (
    "type",
    "description",
    "default",
    "enum",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "x-kubernetes-int-or-string",
    "required",
)


def structural(schema: Schema, definitions: Schema) -> Schema:
    """Convert pydantic's JSON schema to a structural schema: no $ref, no anyOf with null, no titles."""
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[1]]
        return structural({**target, **{k: v for k, v in schema.items() if k != "$ref"}}, definitions)
    if "anyOf" in schema and {option.get("type") for option in schema["anyOf"]} == {"integer", "string"}:
        return _integer_or_word(schema)
    if "anyOf" in schema:
        (only,) = [option for option in schema["anyOf"] if option.get("type") != "null"]
        outer = {k: v for k, v in schema.items() if k != "anyOf"}
        return structural({**only, **outer}, definitions)
    out: Schema = {key: schema[key] for key in _KEPT if key in schema}
    if "description" in out:
        out["description"] = " ".join(out["description"].split())
    if "const" in schema:
        out["enum"] = [schema["const"]]
    if out.get("default", ...) is None:
        del out["default"]
    elif isinstance(out.get("default"), dict):  # the API server has no null: unset fields are omitted
        out["default"] = {key: value for key, value in out["default"].items() if value is not None}
    for bound in ("Minimum", "Maximum"):  # OpenAPI v3.0 has a flag where JSON schema has a number
        if f"exclusive{bound}" in out:
            out[bound.lower()], out[f"exclusive{bound}"] = out[f"exclusive{bound}"], True
    if "properties" in schema:
        out["properties"] = {name: structural(sub, definitions) for name, sub in schema["properties"].items()}
    elif schema.get("type") == "object":
        values = schema.get("additionalProperties")
        if isinstance(values, dict):
            out["additionalProperties"] = structural(values, definitions)
        else:
            out["x-kubernetes-preserve-unknown-fields"] = True
    if "maxProperties" in schema:
        out["maxProperties"] = schema["maxProperties"]
    if "items" in schema:
        out["items"] = structural(schema["items"], definitions)
    return out


def _integer_or_word(schema: Schema) -> Schema:
    """A number or one word, as int-or-string: bounds apply only to numbers, the pattern only to strings."""
    number, word = sorted(schema["anyOf"], key=lambda option: str(option["type"]))
    return {
        "description": " ".join(schema["description"].split()),
        "default": schema["default"],
        "x-kubernetes-int-or-string": True,
        **{bound: number[bound] for bound in ("minimum", "maximum") if bound in number},
        "pattern": f"^{word['const']}$",
    }


def _model_schema(model: type[DistillJobSpec] | type[DistillJobStatus]) -> Schema:
    schema = model.model_json_schema(by_alias=True)
    return structural(schema, schema.get("$defs", {}))


def _spec() -> Schema:
    schema = _model_schema(DistillJobSpec)
    schema["x-kubernetes-validations"] = validations(across.SPEC)
    properties = schema["properties"]
    properties["template"] = pod_template()
    for name, volume in properties["volumes"]["properties"].items():
        volume["x-kubernetes-validations"] = validations(VOLUME if name == "checkpoints" else SOURCE_VOLUME)
    properties["resources"]["x-kubernetes-validations"] = validations(across.RESOURCES)
    properties["student"]["properties"]["inherit"]["x-kubernetes-validations"] = validations(INHERIT)
    distillation = properties["distillation"]
    distillation["x-kubernetes-validations"] = validations(DISTILLATION)
    distillation["properties"]["until"]["x-kubernetes-validations"] = validations(UNTIL)
    properties["scheduling"]["x-kubernetes-validations"] = validations(across.SCHEDULING)
    properties["recovery"]["properties"]["exitCodes"]["x-kubernetes-validations"] = validations(EXIT_CODES)
    toleration = properties["scheduling"]["properties"]["tolerations"]
    toleration["maxItems"] = 50
    return schema


def _status() -> Schema:
    schema = _model_schema(DistillJobStatus)
    schema["default"] = {"observedGeneration": UNOBSERVED}
    for name in ("conditions", "attempts", "avoidedNodes"):
        schema["properties"][name] |= {
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": [LIST_KEYS[name]],
        }
    return schema


def _job() -> Schema:
    return {
        "type": "object",
        "description": DistillJob.__doc__,
        "x-kubernetes-validations": validations(corrections.JOB),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": JOB_NAME_LENGTH, "pattern": JOB_NAME}},
            },
            "spec": _spec(),
            "status": _status(),
        },
    }


def schema_hash() -> str:
    """Identifies the schema of this version, without the descriptions."""

    def bare(part: Any) -> Any:
        if isinstance(part, dict):
            return {k: bare(v) for k, v in part.items() if k != "description" or not isinstance(v, str)}
        return [bare(item) for item in part] if isinstance(part, list) else part

    return hashlib.sha256(json.dumps(bare(_job()), sort_keys=True).encode()).hexdigest()[:16]


def crd() -> Schema:
    """The CustomResourceDefinition as a dict, ready to be written as YAML."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}", "annotations": {SCHEMA_HASH: schema_hash()}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": SINGULAR,
                "shortNames": [SHORT_NAME],
                "categories": ["all"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}, "scale": SCALE},
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path, "priority": priority}
                        for name, kind, path, priority in COLUMNS
                    ],
                    "schema": {"openAPIV3Schema": _job()},
                }
            ],
        },
    }


class _Plain(yaml.SafeDumper):
    """Without anchors, because people read the file and some tools do not support them."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def main() -> None:
    """Write the CRD to standard output."""
    sys.stdout.write("# Generated from crds/distill_api by `make generate`; do not edit.\n")
    yaml.dump(crd(), sys.stdout, _Plain, sort_keys=False, width=110, allow_unicode=True)


if __name__ == "__main__":
    main()
