"""Merges the user's pod template into the operator's; lists with a key are merged as by strategic merge patch."""

from typing import Any

from distill_api.spec.rules.pod_template import OWNED_POD_FIELDS
from distill_operator.builders.affinity import PREFERRED, REQUIRED

Object = dict[str, Any]

LIST_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
}
"""Lists whose elements are identified by a field."""
ADDED = (REQUIRED, PREFERRED)
"""Lists of affinity terms, which the user's are added to. Any other list of the user replaces the operator's."""


def merged(ours: Object, users: Object) -> Object:
    """The operator's pod template with the user's additions. The operator's labels and owned fields are kept."""
    users_spec = {key: value for key, value in (users.get("spec") or {}).items() if key not in OWNED_POD_FIELDS}
    metadata = _merge(users.get("metadata") or {}, ours["metadata"])
    return {"metadata": metadata, "spec": _merge(ours["spec"], users_spec)}


def _merge(below: Object, above: Object) -> Object:
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            out[key] = _merge(old, value)
        elif isinstance(old, list) and isinstance(value, list) and key in LIST_KEYS:
            out[key] = _merge_lists(old, value, LIST_KEYS[key])
        elif isinstance(old, list) and isinstance(value, list) and key in ADDED:
            out[key] = [*old, *value]
        else:
            out[key] = value
    return out


def _merge_lists(below: list[Any], above: list[Any], key: str) -> list[Any]:
    out = {element.get(key): element for element in below}
    for element in above:
        name = element.get(key)
        replaces_source = name in out and key == "name" and "mountPath" not in element and _is_volume(out[name])
        out[name] = element if replaces_source or name not in out else _merge(out[name], element)
    return list(out.values())


def _is_volume(element: Object) -> bool:
    """Whether the element is a volume: it has one source, so the user's replaces the operator's."""
    return "emptyDir" in element or "persistentVolumeClaim" in element
