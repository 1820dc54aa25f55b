"""Generates the CRD from the models: `python -m distill_api.generate.crd > crds/distilljob.yaml`."""

import sys
from collections.abc import Sequence
from typing import Any

import yaml

from distill_api.constants import (
    GROUP,
    JOB_NAME,
    JOB_NAME_LENGTH,
    KIND,
    PLURAL,
    RESERVED_ENV,
    SHORT_NAME,
    SINGULAR,
    TRAINER_CONTAINER,
    VERSION,
)
from distill_api.job import DistillJob
from distill_api.spec import rules
from distill_api.spec.fields import DistillJobSpec
from distill_api.status import DistillJobStatus

Schema = dict[str, Any]

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


def validations(of: Sequence[rules.Rule]) -> list[Schema]:
    """The rules as x-kubernetes-validations."""
    return [{"rule": rule.cel, "message": rule.message} for rule in of]


def _model_schema(model: type[DistillJobSpec] | type[DistillJobStatus]) -> Schema:
    schema = model.model_json_schema(by_alias=True)
    return structural(schema, schema.get("$defs", {}))


def _pod_template() -> Schema:
    """Schema of spec.template: most fields are not checked; those that the operator sets are rejected by name."""
    opaque: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    strings: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
    refused = [
        {
            "rule": f"!has(self.{field})",
            "message": f"template.spec.{field} is set by the operator; remove it"
            " (see spec.scheduling and spec.recovery)",
        }
        for field in rules.OWNED_POD_FIELDS
    ]
    owned_types: dict[str, Schema] = {  # CEL can only refer to fields with a declared type
        "terminationGracePeriodSeconds": {"type": "integer"},
        "automountServiceAccountToken": {"type": "boolean"},
        "nodeSelector": strings,
        "tolerations": {"type": "array", "items": opaque},
    }
    return {
        "type": "object",
        "description": "Additions to the pods, as a pod template (metadata: labels, annotations; spec). The training "
        f"container is named {TRAINER_CONTAINER}; containers, volumes, affinity, security settings and so on are "
        "merged. Fields that the operator sets are rejected.",
        "properties": {
            "metadata": {"type": "object", "properties": {"labels": strings, "annotations": strings}},
            "spec": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": True,
                "properties": {
                    **{field: owned_types.get(field, {"type": "string"}) for field in rules.OWNED_POD_FIELDS},
                    "containers": {"type": "array", "maxItems": 20, "items": _container()},
                },
                "x-kubernetes-validations": refused,
            },
        },
    }


def _container() -> Schema:
    """Schema of a container in spec.template: only the names of its environment variables are checked."""
    names = ", ".join(f"'{name}'" for name in sorted(RESERVED_ENV))
    return {
        "type": "object",
        "required": ["name"],
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": {
            "name": {"type": "string"},
            "env": {
                "type": "array",
                "maxItems": 100,
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "x-kubernetes-preserve-unknown-fields": True,
                    "properties": {"name": {"type": "string", "maxLength": 253}},
                    "x-kubernetes-validations": [
                        {
                            "rule": f"!(self.name in [{names}])",
                            "message": "this variable belongs to torchrun or the operator; remove it",
                        }
                    ],
                },
            },
        },
    }


def _spec() -> Schema:
    schema = _model_schema(DistillJobSpec)
    schema["x-kubernetes-validations"] = validations(rules.SPEC)
    properties = schema["properties"]
    properties["template"] = _pod_template()
    for volume in properties["volumes"]["properties"].values():
        volume["x-kubernetes-validations"] = validations(rules.VOLUME)
    distillation = properties["distillation"]
    distillation["x-kubernetes-validations"] = validations(rules.DISTILLATION)
    distillation["properties"]["until"]["x-kubernetes-validations"] = validations(rules.UNTIL)
    toleration = properties["scheduling"]["properties"]["tolerations"]
    toleration["maxItems"] = 50
    return schema


def _status() -> Schema:
    schema = _model_schema(DistillJobStatus)
    schema["properties"]["conditions"] |= {
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    }
    schema["properties"]["attempts"] |= {
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["number"],
    }
    return schema


def crd() -> Schema:
    """The CustomResourceDefinition as a dict, ready to be written as YAML."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
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
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path, "priority": priority}
                        for name, kind, path, priority in COLUMNS
                    ],
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": DistillJob.__doc__,
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {
                                    "type": "object",
                                    "properties": {
                                        "name": {"type": "string", "maxLength": JOB_NAME_LENGTH, "pattern": JOB_NAME}
                                    },
                                },
                                "spec": _spec(),
                                "status": _status(),
                            },
                        }
                    },
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
