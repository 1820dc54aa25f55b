"""Affinity of a job's pods: each on a node of its own, all in one zone, rack or block if the job asks for that, and not
on nodes that the job avoids.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from distill_api.spec.pods import Scheduling

HOSTNAME = "kubernetes.io/hostname"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
WEIGHT = 100
"""The highest: network and sound nodes count more than what else the scheduler prefers."""


def build_affinity(scheduling: Scheduling, others: Mapping[str, str]) -> dict[str, Any]:
    """Affinity to and from the pods with the labels `others`, which the pod itself has, too.

    The scheduler places the first of the pods in any domain of the required topology, because the pod matches its own
    term; the others have to follow.
    """
    near: dict[str, Any] = {}
    if scheduling.required_topology is not None:
        near[REQUIRED] = [_term(others, scheduling.required_topology)]
    if scheduling.preferred_topology is not None:
        near[PREFERRED] = [{"weight": WEIGHT, "podAffinityTerm": _term(others, scheduling.preferred_topology)}]
    apart = {REQUIRED: [_term(others, HOSTNAME)]}
    return {**({"podAffinity": near} if near else {}), "podAntiAffinity": apart}


def _term(others: Mapping[str, str], topology: str) -> dict[str, Any]:
    return {"labelSelector": {"matchLabels": dict(others)}, "topologyKey": topology}


def avoiding(pod: dict[str, Any], nodes: Sequence[str], unwanted: Sequence[str] = ()) -> dict[str, Any]:
    """The pod's spec, in which the node affinity also excludes `nodes` by name, and prefers others to `unwanted`.

    The terms of a user's required affinity are alternatives, so each gets the condition. An empty term matches no node,
    and stays so.
    """
    affinity = pod.get("affinity") or {}
    changed = dict(affinity.get("nodeAffinity") or {})
    if nodes:
        required, others = changed.get(REQUIRED), _others(nodes)
        alternatives = [{}] if required is None else required.get("nodeSelectorTerms") or ()
        terms = [_and(term, others) if required is None or any(term.values()) else term for term in alternatives]
        changed[REQUIRED] = {**(required or {}), "nodeSelectorTerms": terms}
    if unwanted:
        less = {"weight": WEIGHT, "preference": _and({}, _others(unwanted))}
        changed[PREFERRED] = [*(changed.get(PREFERRED) or ()), less]
    return {**pod, "affinity": {**affinity, "nodeAffinity": changed}} if nodes or unwanted else pod


def _others(nodes: Sequence[str]) -> list[dict[str, Any]]:
    """Conditions that all nodes but these meet; each may have one value only."""
    return [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in nodes]


def _and(term: dict[str, Any], conditions: list[dict[str, Any]]) -> dict[str, Any]:
    return {**term, "matchFields": [*(term.get("matchFields") or ()), *conditions]}
