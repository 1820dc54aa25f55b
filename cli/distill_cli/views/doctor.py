"""What `distill doctor` finds: each check with its level, and the mend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

from distill_api.constants import SCHEMA_HASH
from distill_api.reading.quantity import amount
from distill_client.apiserver.kinds import Object
from distill_client.installation import operator_version, setting

OLDEST_MINOR = 31
"""Of Kubernetes 1.x, as the chart requires."""
ENFORCE = "pod-security.kubernetes.io/enforce"


class Level(StrEnum):
    """How a check ends."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "?"
    """You lack the right to look."""


@dataclass(frozen=True)
class Check:
    """One line."""

    name: str
    level: Level
    says: str
    mend: str = ""


@dataclass(frozen=True)
class Facts:
    """What was read of the cluster; None for what may not be read."""

    namespace: str
    version: Mapping[str, Any]
    namespace_object: Object | None
    namespace_exists: bool | None
    crd: Object | None
    crd_installed: bool
    schema_hash: str
    own_version: str
    operators: Sequence[Object] | None
    rights: Mapping[str, bool]
    """By what the right is for."""
    storage_classes: Sequence[Object] | None
    claims: Sequence[Object] | None
    nodes: Sequence[Object] | None
    gpu_pods: Sequence[Object] | None
    """Pods of all namespaces, to see which GPUs are free."""
    groups: frozenset[str]
    """API groups."""
    pod_monitors: Sequence[Object] | None
    quotas: Sequence[Object] | None
    resources: tuple[str, ...] = ("nvidia.com/gpu",)
    notes: tuple[str, ...] = field(default=())


def checks(facts: Facts) -> list[Check]:
    """All checks, in the order of what depends on what."""
    return [
        _version(facts),
        _namespace(facts),
        _crd(facts),
        *_operator(facts),
        *_rights(facts),
        _storage(facts),
        _claims(facts),
        _gpus(facts),
        _prometheus(facts),
        *_policies(facts),
    ]


def _unknown(name: str, what: str) -> Check:
    return Check(name, Level.UNKNOWN, f"you may not read {what}", "ask an admin to run distill doctor")


def _version(facts: Facts) -> Check:
    text = str(facts.version.get("gitVersion") or "unknown")
    minor = "".join(letter for letter in str(facts.version.get("minor") or "") if letter.isdigit())
    if minor and int(minor) < OLDEST_MINOR:
        return Check("Kubernetes", Level.FAIL, f"{text} is too old", f"use Kubernetes 1.{OLDEST_MINOR} or newer")
    return Check("Kubernetes", Level.OK, text)


def _namespace(facts: Facts) -> Check:
    if facts.namespace_exists is False:
        mend = f"kubectl create namespace {facts.namespace}, or use -n with another"
        return Check("namespace", Level.FAIL, f"{facts.namespace} does not exist", mend)
    return Check("namespace", Level.OK, facts.namespace)


def _crd(facts: Facts) -> Check:
    if not facts.crd_installed:
        return Check(
            "CRD", Level.FAIL, "this cluster has no DistillJobs", "helm install the chart charts/distill-operator"
        )
    if facts.crd is None:
        return Check("CRD", Level.OK, "DistillJobs are served; you may not read which version")
    if (facts.crd["metadata"].get("annotations") or {}).get(SCHEMA_HASH) == facts.schema_hash:
        return Check("CRD", Level.OK, "the same version as distill")
    return Check(
        "CRD", Level.WARN, "of another version than distill: fields that only one of them knows are lost or refused",
        "upgrade the chart, or install the distill of the cluster's version",
    )  # fmt: skip


def _operator(facts: Facts) -> Iterator[Check]:
    if facts.operators is None:
        yield _unknown("operator", "pods of other namespaces")
        return
    if not facts.operators:
        yield Check(
            "operator", Level.FAIL, "no pod of the operator exists: jobs stay Pending", "helm install the chart"
        )
        return
    ready = [pod for pod in facts.operators if _ready(pod)]
    where = {str(pod["metadata"]["namespace"]) for pod in facts.operators}
    named = ", ".join(sorted(where))
    if not ready:
        mend = f"kubectl -n {sorted(where)[0]} describe pod -l app.kubernetes.io/component=operator"
        yield Check("operator", Level.FAIL, f"no pod in {named} is ready", mend)
        return
    versions = sorted({operator_version(pod) for pod in ready})
    text = f"{len(ready)} of {len(facts.operators)} pods ready in {named}, version {', '.join(versions)}"
    same = versions == [facts.own_version] or "unknown" in facts.own_version
    mend = f"use the distill of version {versions[0]}, or upgrade the chart"
    yield Check("operator", Level.OK if same else Level.WARN, text, "" if same else mend)
    watched = [setting(pod, "WATCH_NAMESPACES") for pod in ready]
    if any(names == "" for names in watched):
        yield Check("watched", Level.OK, "the operator watches all namespaces")
    elif facts.namespace in {name for names in watched if names for name in names.split(",")}:
        yield Check("watched", Level.OK, f"the operator watches {facts.namespace}")
    else:
        yield Check(
            "watched", Level.FAIL, f"the operator does not watch {facts.namespace}: jobs there stay Pending",
            "add it to the chart's watchNamespaces, or use -n with a namespace that is watched",
        )  # fmt: skip


def _ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _rights(facts: Facts) -> Iterator[Check]:
    missing = [what for what, allowed in facts.rights.items() if not allowed]
    if not missing:
        yield Check("rights", Level.OK, "you may do all that distill does")
        return
    basic = [what for what in missing if what.startswith(("list", "create", "change"))]
    mend = "ask an admin for the ClusterRole edit in this namespace; the chart adds DistillJobs to it"
    yield Check("rights", Level.FAIL if basic else Level.WARN, f"you may not: {'; '.join(missing)}", mend)


def _storage(facts: Facts) -> Check:
    if facts.storage_classes is None:
        return _unknown("storage", "storage classes")
    if not facts.storage_classes:
        return Check(
            "storage", Level.WARN, "no storage class: claimTemplates do not work", "name existing claims (claimName)"
        )
    default = [c["metadata"]["name"] for c in facts.storage_classes if _is_default(c)]
    names = ", ".join(sorted(c["metadata"]["name"] for c in facts.storage_classes))
    if not default:
        return Check(
            "storage",
            Level.WARN,
            f"no default storage class; there are {names}",
            "set storageClassName in claimTemplates",
        )
    return Check("storage", Level.OK, f"classes {names}; default {', '.join(default)}")


def _is_default(storage_class: Object) -> bool:
    annotations = storage_class["metadata"].get("annotations") or {}
    return annotations.get("storageclass.kubernetes.io/is-default-class") == "true"


def _claims(facts: Facts) -> Check:
    if facts.claims is None:
        return _unknown("claims", "claims")
    shared, lost = [], []
    for claim in facts.claims:
        name = claim["metadata"]["name"]
        if "ReadWriteMany" in (claim["spec"].get("accessModes") or ()):
            shared.append(name)
        if (claim.get("status") or {}).get("phase") == "Lost":
            lost.append(name)
    if lost:
        return Check(
            "claims", Level.WARN, f"have lost their volume: {', '.join(lost)}", "bind them again, or delete them"
        )
    if not shared:
        return Check(
            "claims", Level.WARN, "no ReadWriteMany claim: jobs with several nodes need one for checkpoints",
            "create one, or use a claimTemplate of a class that can be shared (NFS, CephFS, Filestore, EFS …)",
        )  # fmt: skip
    return Check("claims", Level.OK, f"ReadWriteMany: {', '.join(sorted(shared)[:6])}{' …' if len(shared) > 6 else ''}")


def _gpus(facts: Facts) -> Check:
    if facts.nodes is None:
        return _unknown("GPUs", "nodes")
    names = facts.resources
    have = [(node, _sum((node.get("status") or {}).get("allocatable") or {}, names)) for node in facts.nodes]
    total = sum((count for _, count in have), Decimal(0))
    if not total:
        return Check(
            "GPUs", Level.WARN, f"no node has {' or '.join(names)}: jobs train on CPUs only (accelerators.perNode: 0)",
            "install the device plugin, or set spec.accelerators.resource to the name that your nodes have",
        )  # fmt: skip
    nodes = [node["metadata"]["name"] for node, count in have if count]
    text = f"{total:f} on {len(nodes)} node{'s' if len(nodes) > 1 else ''}"
    if facts.gpu_pods is not None:
        used = sum((_pod_gpus(pod, names) for pod in facts.gpu_pods), Decimal(0))
        text += f", {total - used:f} not requested by any pod"
    return Check("GPUs", Level.OK, text)


def _pod_gpus(pod: Object, names: Sequence[str]) -> Decimal:
    if (pod.get("status") or {}).get("phase") not in ("Pending", "Running") or not pod["spec"].get("nodeName"):
        return Decimal(0)
    limits = (((c.get("resources") or {}).get("limits") or {}) for c in pod["spec"].get("containers") or ())
    return sum((_sum(limit, names) for limit in limits), Decimal(0))


def _sum(quantities: Mapping[str, Any], names: Sequence[str]) -> Decimal:
    return sum((amount(str(quantities[name])) for name in names if name in quantities), Decimal(0))


def _prometheus(facts: Facts) -> Check:
    if "monitoring.coreos.com" not in facts.groups:
        return Check(
            "Prometheus", Level.WARN, "no Prometheus Operator: dashboards have no data unless you scrape by yourself",
            "install kube-prometheus-stack, then set the chart's monitoring values (docs/observability.md)",
        )  # fmt: skip
    if facts.pod_monitors is None:
        return Check("Prometheus", Level.OK, "Prometheus Operator is installed; you may not read PodMonitors")
    ours = [m for m in facts.pod_monitors if "distill" in str(m["metadata"].get("name"))]
    if not ours:
        return Check(
            "Prometheus", Level.WARN, "Prometheus Operator is installed, but nothing scrapes training pods",
            "set the chart's monitoring.podMonitor.enabled and monitoring.serviceMonitor.enabled",
        )  # fmt: skip
    return Check("Prometheus", Level.OK, "training pods are scraped")


def _policies(facts: Facts) -> Iterator[Check]:
    level = ((facts.namespace_object or {}).get("metadata", {}).get("labels") or {}).get(ENFORCE)
    if facts.namespace_object is not None:
        text = f"Pod Security Standard {level}" if level else "no Pod Security Standard is enforced"
        yield Check("policies", Level.OK, f"{text}; training pods comply with restricted")
    for quota in facts.quotas or ():
        full = [
            f"{name} {used}/{hard}"
            for name, hard in ((quota.get("status") or {}).get("hard") or {}).items()
            if (used := ((quota.get("status") or {}).get("used") or {}).get(name)) is not None and _full(used, hard)
        ]
        if full:
            yield Check(
                "quota", Level.WARN, f"{quota['metadata']['name']} is used up: {', '.join(full)}",
                "jobs wait (QuotaExceeded) until others end; or ask for a larger quota",
            )  # fmt: skip


def _full(used: str, hard: str) -> bool:
    try:
        return amount(str(used)) >= amount(str(hard)) > 0
    except ValueError:
        return False
