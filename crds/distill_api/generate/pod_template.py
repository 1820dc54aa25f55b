"""The schema of spec.template in the CRD: a pod template of which only what has a rule is declared.

CEL sees declared fields only; all others are kept as they are, and Kubernetes checks them when a pod is created.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from distill_api.constants import TRAINER_CONTAINER, Requests
from distill_api.spec.rules import pod_template as rules
from distill_api.spec.rules.rule import Rule

Schema = dict[str, Any]

_STRING: Schema = {"type": "string"}
_STRINGS: Schema = {"type": "object", "additionalProperties": _STRING}
_ANYTHING: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_OBJECTS: Schema = {"type": "array", "items": _ANYTHING}
_BOOLEAN: Schema = {"type": "boolean"}
_RESOURCES: Schema = {**_ANYTHING, "properties": {"requests": _ANYTHING, "limits": _ANYTHING}}

_TYPES: dict[str, Schema] = {
    "terminationGracePeriodSeconds": {"type": "integer"},
    "automountServiceAccountToken": _BOOLEAN,
    "hostNetwork": _BOOLEAN,
    "hostPID": _BOOLEAN,
    "hostIPC": _BOOLEAN,
    "nodeSelector": _STRINGS,
    "tolerations": _OBJECTS,
    "ephemeralContainers": _OBJECTS,
    "restartPolicyRules": _OBJECTS,
}
"""Types of declared fields that are no strings."""

_CONTAINERS, _VARIABLES, _VOLUMES, _SOURCES = 20, 100, 100, 50
"""Maximum lengths of lists: the API server bounds the cost of the rules on their elements by them."""


def validations(of: Sequence[Rule]) -> list[Schema]:
    """The rules as x-kubernetes-validations."""
    return [{"rule": rule.cel, "message": rule.message} for rule in of]


def pod_template() -> Schema:
    """Schema of spec.template."""
    return {
        "type": "object",
        "description": "Additions to the pods, as a pod template (metadata: labels, annotations; spec). The training "
        f"container is named {TRAINER_CONTAINER}; containers, volumes, affinity, security settings and so on are "
        "merged. Fields that the operator sets are rejected, as are host namespaces and service account tokens. By "
        f"default a pod requests {Requests.CPU_PER_PROCESS}m of cpu and {Requests.MEMORY_PER_PROCESS}Mi of memory for "
        f"each of its processes, and {Requests.CPU_PER_WORKER}m and {Requests.MEMORY_PER_WORKER}Mi for each of their "
        f"training.workers, of which at most {Requests.WORKERS} count, with the memory of "
        f"{Requests.BATCHES_PER_WORKER} batches for each; spec.resources, or resources of the container "
        f"{TRAINER_CONTAINER} here, replace that.",
        "properties": {
            "metadata": {"type": "object", "properties": {"labels": _STRINGS, "annotations": _STRINGS}},
            "spec": {
                **_ANYTHING,
                "properties": {
                    **_declared(rules.OWNED_POD_FIELDS),
                    "containers": _list(
                        _CONTAINERS, _container(rules.CONTAINER, rules.OWNED_TRAINER_FIELDS, resources=_RESOURCES)
                    ),
                    "initContainers": _list(_CONTAINERS, _container(rules.INIT_CONTAINER)),
                    "volumes": _list(_VOLUMES, _volume()),
                },
                "x-kubernetes-validations": validations(rules.POD),
            },
        },
    }


def _declared(fields: Iterable[str]) -> Schema:
    return {field: _TYPES.get(field, _STRING) for field in fields}


def _list(longest: int, items: Schema) -> Schema:
    return {"type": "array", "maxItems": longest, "items": items}


def _named(of: Sequence[Rule], **properties: Schema) -> Schema:
    """An element of a list, which has a name, these properties and any others."""
    return {
        **_ANYTHING,
        "required": ["name"],
        "properties": {"name": {"type": "string", "maxLength": 253}, **properties},
        "x-kubernetes-validations": validations(of),
    }


def _container(of: Sequence[Rule], fields: Iterable[str] = (), **properties: Schema) -> Schema:
    return _named(of, **_declared(fields), **properties, env=_list(_VARIABLES, _named(rules.VARIABLE)))


def _volume() -> Schema:
    source = {
        **_ANYTHING,
        "properties": dict.fromkeys(rules.PROJECTED_IDENTITIES, _ANYTHING),
        "x-kubernetes-validations": validations(rules.PROJECTION),
    }
    return _named(rules.VOLUME, projected={**_ANYTHING, "properties": {"sources": _list(_SOURCES, source)}})
