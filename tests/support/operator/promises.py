"""Promises about how attempts end that every simulated cluster checks with each status write."""

from datetime import datetime
from typing import Any

from distill_api.constants import AVOIDED_NODES, TERMINAL_PHASES
from distill_api.reason_facts import Blame
from distill_api.status import DECISION_LETTERS, DECISION_LINES, KEPT_AVOIDED_NODES, DistillJobStatus


def check_ends(old: DistillJobStatus, new: DistillJobStatus, now: datetime) -> None:
    """Avoided nodes are those that an attempt's end speaks against, for a time; each end has its record, once."""
    names = [node.node for node in new.avoided_nodes]
    assert len(set(names)) == len(names) <= KEPT_AVOIDED_NODES
    assert all(node.until > now for node in new.avoided_nodes) or new.phase in TERMINAL_PHASES
    added = [node for node in new.avoided_nodes if node not in old.avoided_nodes]
    ended = {attempt.number: attempt for attempt in new.attempts}
    for node in added:
        assert (ended[node.attempt].node, ended[node.attempt].reason) == (node.node, node.reason)
        assert node.reason.facts.blames_node != Blame.NEVER
    before = {attempt.number: attempt for attempt in old.attempts}
    for attempt in new.attempts:
        was = before.get(attempt.number)
        assert len(attempt.decision or ()) <= DECISION_LINES
        assert all(len(line) <= DECISION_LETTERS for line in attempt.decision or ())
        assert (attempt.reason is None) or attempt.decision, "an attempt ended without a record"
        if was is not None and was.reason is not None:
            same = attempt.decision == was.decision
            assert same == (attempt.reason == was.reason), "the record changes with the reason, and only then"


def excluded(manifest: dict[str, Any]) -> tuple[str, ...]:
    """The nodes that the scheduler keeps the pods of this Job from, which must be those in its annotation."""
    affinity = manifest["spec"]["template"]["spec"].get("affinity", {}).get("nodeAffinity", {})
    terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", [{}])
    found = [tuple(rule["values"][0] for rule in term.get("matchFields", ())) for term in terms]
    told = manifest["metadata"].get("annotations", {}).get(AVOIDED_NODES, "")
    assert ",".join(found[0]) == told
    return found[0]
