"""Rules of spec.template: what a job may not add to its pods, because the operator or the cluster's admin decides it.

As in across.py each rule has two forms, here for one node of the template: the pod's spec, a container, a variable, a
volume. generate/pod_template.py puts the CEL at these nodes of the CRD; `refusals` walks the template in Python, for
`distill validate`, `distill run` and the operator, which creates no pod of a template that is refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from distill_api.constants import RESERVED_ENV, RESERVED_ENV_PREFIXES, TRAINER_CONTAINER
from distill_api.spec.rules.rule import Rule

Node = Mapping[str, Any]

_NAMES = "names the pods, so that ranks find each other; remove it"
_NO_ACCOUNT = "would give the pod a service account; training pods hold no API token, so remove it"
_RECOVERY = "is set by the operator; remove it (see spec.recovery)"
_SCHEDULING = "is set by the operator; remove it and use spec.scheduling"

OWNED_POD_FIELDS: Mapping[str, str] = {
    "restartPolicy": _RECOVERY,
    "hostname": f"is set by the operator: it {_NAMES}",
    "subdomain": f"is set by the operator: it {_NAMES}",
    "terminationGracePeriodSeconds": "is set by the operator; remove it and use spec.recovery.gracePeriodSeconds",
    "nodeName": _SCHEDULING,
    "nodeSelector": _SCHEDULING,
    "tolerations": _SCHEDULING,
    "priorityClassName": _SCHEDULING,
    "serviceAccountName": _NO_ACCOUNT,
    "serviceAccount": _NO_ACCOUNT,
    "automountServiceAccountToken": "is set by the operator: training pods hold no API token; remove it",
    "hostNetwork": "would give the pod its node's network; remove it",
    "hostPID": "would show the pod all processes of its node; remove it",
    "hostIPC": "would give the pod its node's shared memory; remove it",
    "ephemeralContainers": "cannot be part of a template; remove it and use kubectl debug on a running pod",
}
"""Fields of template.spec that users must not set, and why not. hostUsers is not among them: false only takes rights
away, and true is what every pod has."""

OWNED_TRAINER_FIELDS: Mapping[str, str] = {
    "terminationMessagePath": "the operator reads there how the container ended",
    "terminationMessagePolicy": "the operator reads in the termination message how the container ended",
    "restartPolicy": "the operator starts a new attempt instead",
    "restartPolicyRules": "the operator starts a new attempt instead",
}
"""Fields of the trainer container that users must not set, and why not."""

OWNED_VOLUMES = ("checkpoints", "data", "models", "tmp")
"""Volumes that users must not replace. The volume shm may be replaced by a larger one."""

PROJECTED_IDENTITIES: Mapping[str, str] = {"serviceAccountToken": "an API token", "podCertificate": "a certificate"}
"""Sources of a projected volume that users must not add, and what they would give the pod."""


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _lacks(field: str, node: Node) -> bool:
    return field not in node


def _is_no_trainer_or_lacks(field: str, container: Node) -> bool:
    return container.get("name") != TRAINER_CONTAINER or field not in container


def _is_no_trainer(container: Node) -> bool:
    return container.get("name") != TRAINER_CONTAINER


def _is_free(variable: Node) -> bool:
    name = str(variable.get("name"))
    return name not in RESERVED_ENV and not name.startswith(RESERVED_ENV_PREFIXES)


def _is_users(volume: Node) -> bool:
    return volume.get("name") not in OWNED_VOLUMES


def _refused(field: str, message: str) -> Rule:
    return Rule(f"!has(self.{field})", message, partial(_lacks, field))


POD: Sequence[Rule] = tuple(_refused(field, f"template.spec.{field} {why}") for field, why in OWNED_POD_FIELDS.items())

CONTAINER: Sequence[Rule] = tuple(
    Rule(
        f"self.name != '{TRAINER_CONTAINER}' || !has(self.{field})",
        f"{field} of the container {TRAINER_CONTAINER} is set by the operator; remove it: {why}",
        partial(_is_no_trainer_or_lacks, field),
    )
    for field, why in OWNED_TRAINER_FIELDS.items()
)

INIT_CONTAINER: Sequence[Rule] = (
    Rule(
        f"self.name != '{TRAINER_CONTAINER}'",
        f"{TRAINER_CONTAINER} is the name of the training container; give this init container another one",
        _is_no_trainer,
    ),
)

VARIABLE: Sequence[Rule] = (
    Rule(
        f"!(self.name in [{_quoted(sorted(RESERVED_ENV))}])"
        + "".join(f" && !self.name.startsWith('{prefix}')" for prefix in RESERVED_ENV_PREFIXES),
        "this variable belongs to torchrun or the operator; remove it",
        _is_free,
    ),
)

VOLUME: Sequence[Rule] = (
    Rule(
        f"!(self.name in [{_quoted(OWNED_VOLUMES)}])",
        "a volume of this name is made by the operator (see spec.volumes); give yours another name",
        _is_users,
    ),
)

PROJECTION: Sequence[Rule] = tuple(
    _refused(
        field, f"{field} would give the pod {what} of a service account; training pods hold none, so remove this source"
    )
    for field, what in PROJECTED_IDENTITIES.items()
)


def refusals(template: Mapping[str, Any] | None) -> list[str]:
    """What is refused in spec.template, each with its place; empty if nothing is."""
    pod = _below(template, "spec")
    return list(_walk(pod)) if pod else []


def _walk(pod: Node) -> Iterator[str]:
    yield from _broken(POD, "spec.template.spec", pod)
    for kind, rules in (("containers", CONTAINER), ("initContainers", INIT_CONTAINER)):
        for place, container in _elements(pod, kind, "spec.template.spec"):
            yield from _broken(rules, place, container)
            for inner, variable in _elements(container, "env", place):
                yield from _broken(VARIABLE, inner, variable)
    for place, volume in _elements(pod, "volumes", "spec.template.spec"):
        yield from _broken(VOLUME, place, volume)
        for inner, source in _elements(_below(volume, "projected"), "sources", f"{place}.projected"):
            yield from _broken(PROJECTION, inner, source)


def _broken(rules: Sequence[Rule], place: str, node: Node) -> Iterator[str]:
    return (f"{place}: {rule.message}" for rule in rules if rule.holds is not None and not rule.holds(node))


def _below(node: Node | None, field: str) -> Node:
    """The mapping at `field`; empty if there is none. The API server refuses anything else by its type."""
    value = node.get(field) if node is not None else None
    return value if isinstance(value, Mapping) else {}


def _elements(node: Node, field: str, place: str) -> Iterator[tuple[str, Node]]:
    """The mappings in the list at `field`, with their places."""
    values = node.get(field)
    for index, value in enumerate(values if isinstance(values, list) else ()):
        if isinstance(value, Mapping):
            yield f"{place}.{field}.{index}", value
