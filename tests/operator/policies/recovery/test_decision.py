"""The record of an attempt's decisions: what it says was observed, it is short, and it is written once."""

import json
import re
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_api.constants import Phase
from distill_api.reasons import Reason
from distill_api.status import (
    DECISION_LETTERS,
    DECISION_LINES,
    KEPT_ATTEMPTS,
    KEPT_AVOIDED_NODES,
    AvoidedNode,
    DistillJobStatus,
)
from distill_operator.plan.plan import make_plan
from distill_operator.policies.recovery import decision
from distill_operator.policies.recovery.decision import End, Rule
from distill_operator.types.actions import Notice, Plan
from distill_operator.types.observed import ContainerEnd, Disruption, Observed, PodFacts
from tests.support.operator.cluster import CRASHES, FAULTS, OUTAGES, Cluster
from tests.support.operator.samples import (
    NOW,
    SETTINGS,
    at,
    attempt,
    child,
    closed,
    disrupted,
    ended,
    job,
    observed,
    pod,
    report,
    status,
)  # fmt: skip
from tests.support.operator.world import VOLUMES

PEER_LOST = report("failed", Reason.PEER_LOST)
POD = re.compile(r"^(?P<name>\S+) on (?P<node>no node|[^\s,]+)")


def record(*pods: PodFacts, seconds: float = 60, spec: dict[str, Any] | None = None, **fields: Any) -> list[str]:
    """The lines about the end of attempt 1."""
    fields.setdefault("jobs", (child(failing_at=at(11)),))
    view = observed(job(status(attempt(running_at=NOW)), **(spec or {})), *pods, **fields)
    plan = make_plan(view, at(seconds), SETTINGS)
    assert plan.status is not None
    return plan.status.attempts[0].decision or []


KILLED = "trainer exit code 137 Error 2026-11-23T12:00:10Z (node)"
EVENTS = "rule: the first event in pods and Job"
ENDS = {
    "a kill and its echo": (
        (pod(0, **ended(11, 1, PEER_LOST)), pod(1, **ended(10, 137))),
        [
            f"{EVENTS}: ProcessKilled",
            f"cause: tiny-a1-1 on node1, {KILLED}",
            "set aside: PeerLost follows from another end: tiny-a1-0 on node0, trainer exit code 1 Error "
            "2026-11-23T12:00:11Z (node)",
        ],
    ),
    "a preemption and a crash at the same time": (
        (pod(0, **ended(10, 137)), pod(1, **disrupted(12))),
        [
            f"{EVENTS}: Preempted",
            "cause: tiny-a1-1 on node1, DisruptionTarget PreemptionByScheduler 2026-11-23T12:00:12Z (control plane), "
            "deletion 2026-11-23T12:00:12Z (API server)",
            "set aside: ProcessKilled at about the same time, and a disruption counts first: tiny-a1-0 on node0, "
            f"{KILLED}",
        ],
    ),
    "a crash, long before a preemption": (
        (pod(0, **ended(10, 137)), pod(1, **disrupted(30))),
        [
            f"{EVENTS}: ProcessKilled",
            f"cause: tiny-a1-0 on node0, {KILLED}",
            "set aside: Preempted 20 s after the first event: tiny-a1-1 on node1, DisruptionTarget "
            "PreemptionByScheduler 2026-11-23T12:00:30Z (control plane), deletion 2026-11-23T12:00:30Z (API server)",
        ],
    ),
    "a crash and what the Job controller deletes": (
        (pod(0, **ended(10, 137)), pod(1, deleted_at=at(12))),
        [
            f"{EVENTS}: ProcessKilled",
            f"cause: tiny-a1-0 on node0, {KILLED}",
            "set aside: deleted by the Job controller after another pod failed: tiny-a1-1 on node1, deletion "
            "2026-11-23T12:00:12Z (API server)",
        ],
    ),
    "a device": (
        (pod(0), pod(1, **ended(10, 1, report("failed", Reason.ACCELERATOR_FAILED)))),
        [
            f"{EVENTS}: AcceleratorFailed",
            "cause: tiny-a1-1 on node1, trainer exit code 1 Error 2026-11-23T12:00:10Z (node)",
            "next: node node1 is avoided until 2026-11-23T13:01:00Z, operator's clock",
        ],
    ),
}


@pytest.mark.parametrize(("pods", "lines"), ENDS.values(), ids=ENDS.keys())
def test_the_record_says_what_was_seen_by_whose_clock_and_what_else(
    pods: tuple[PodFacts, ...], lines: list[str]
) -> None:
    assert record(*pods) == lines


def test_ranks_that_waited_for_each_other_are_said_to_have_stalled() -> None:
    gang = [pod(n, **ended(10 + n, 1, report("failed", Reason.PEER_LOST, waited=True))) for n in (0, 1)]
    lines = record(*gang)
    assert lines[0] == f"{EVENTS}: Stalled"
    assert "cause: a rank waited in vain for others, so PeerLost counts as Stalled" in lines
    assert lines[-1].startswith("set aside: PeerLost at about the same time, and the other one is not later: tiny-a1-1")


def test_a_rule_for_the_exit_code_is_said_to_make_the_reason() -> None:
    rules = {"exitCodes": [{"values": [75], "action": "Ignore"}]}
    lines = record(pod(0), pod(1, **ended(10, 75)), spec={"recovery": rules})
    assert lines == [
        f"{EVENTS}: IgnoredExitCode",
        "cause: tiny-a1-1 on node1, trainer exit code 75 Error 2026-11-23T12:00:10Z (node)",
        "cause: TrainerError, which a rule of spec.recovery.exitCodes makes IgnoredExitCode",
    ]


def test_without_pods_the_record_names_the_condition_of_the_job() -> None:
    failed = child(failing_at=at(10), failure_reason="PodFailurePolicy", failure_message="… DisruptionTarget …")
    assert record(jobs=(failed,)) == [
        f"{EVENTS}: Disrupted",
        "cause: no pod shows one; condition of Job tiny-a1: PodFailurePolicy at 2026-11-23T12:00:10Z (control plane)",
    ]
    assert record(jobs=())[1] == "cause: the attempt's Job is gone, and no pod shows another event"


def test_a_user_who_suspends_leaves_what_was_not_the_cause() -> None:
    lost = pod(1, **ended(50, 1, PEER_LOST))
    lines = record(pod(0), lost, spec={"suspend": True}, jobs=(child(),))
    assert lines[0] == "rule: spec.suspend: SuspendedByUser"
    assert lines[1].startswith("set aside: not shown to be the cause: tiny-a1-1 on node1, trainer exit code 1")


def test_a_lost_node_that_is_found_later_is_added_and_the_rest_stays() -> None:
    first = attempt(
        reason=Reason.STALLED, message="no progress", ended_at=at(10), running_at=NOW, decision=["rule: x"], node=None
    )
    dark = pod(1, deleted_at=at(11), end_due_at=at(21))
    view = observed(job(status(first)), dark, jobs=(child(deleting=True),))
    plan = make_plan(view, at(90), SETTINGS)
    assert plan.status is not None
    stored = plan.status.attempts[0]
    assert (stored.reason, stored.node) == (Reason.NODE_LOST, "node1")
    later = "later: a lost node: NodeLost replaces Stalled at 2026-11-23T12:01:30Z, operator's clock: node node1"
    assert stored.decision == ["rule: x", later]
    again = make_plan(replace(view, job=view.job.model_copy(update={"status": plan.status})), at(95), SETTINGS)
    assert again.status is None or again.status.attempts[0].decision == stored.decision


STARTS = {
    "all nodes": ({}, 2, None),
    "shrunk": (
        {"reason": Reason.SCHEDULING_TIMEOUT, "nodes": 4, "next_nodes": 2},
        2,
        "start: 2 of 4 nodes: attempt 1 found no room for 4",
    ),
    "grown": (
        {"reason": Reason.GROWING, "nodes": 2, "next_nodes": 4},
        4,
        "start: 4 of 4 nodes: placeholders held more nodes than attempt 1 had",
    ),
    "as before": ({"reason": Reason.PREEMPTED, "nodes": 2}, 2, "start: 2 of 4 nodes, as the attempt before"),
}


@pytest.mark.parametrize(("last", "nodes", "line"), STARTS.values(), ids=STARTS.keys())
def test_the_start_says_why_an_attempt_has_other_nodes_than_all(
    last: dict[str, Any], nodes: int, line: str | None
) -> None:
    before = status(closed(1, **last)) if last else status()
    new = attempt(2, nodes=nodes)
    assert decision.of_start(before, new, 4 if line else nodes, kept=False) == ([line] if line else [])


# --- short, whatever is observed

LONG = "\N{FACE WITH TEARS OF JOY}" * 400


def worst_gang(count: int) -> tuple[PodFacts, ...]:
    end = ContainerEnd("c" * 63, 137, at(10), LONG)
    return tuple(
        pod(
            rank, name=LONG, uid=f"pod-{rank}", node=f"node{rank}" * 40, phase="Failed", end=end, deleted_at=at(11),
            disruption=Disruption(LONG, "why\n" * 99, at(12)), waiting=LONG, gone=True,
        )
        for rank in range(count)
    )  # fmt: skip


def worst_status() -> DistillJobStatus:
    names = [f"{'n' * 250}{n:03d}" for n in range(KEPT_AVOIDED_NODES)]
    nodes = [AvoidedNode(node=n, reason=Reason.ACCELERATOR_FAILED, attempt=7, until=at(9)) for n in names]
    gang = worst_gang(40)
    view = observed(job(nodes=40, training={"batch": 40}), *gang, jobs=(child(failing_at=at(11)),))
    shrunk = status(closed(next_nodes=3), avoided_nodes=nodes)
    start = decision.of_start(shrunk, attempt(2, nodes=3, avoids=names), 40, kept=True)
    assert len(start) == 2
    open_one = attempt(1, avoids=names, decision=start)
    notice = Notice(Reason.STALLED, "m" * 200, gang[0].node)
    before = status(open_one, avoided_nodes=nodes)
    blamed = AvoidedNode(node=LONG, reason=Reason.STALLED, attempt=1, until=at(99))
    after_one = open_one.model_copy(update={"reason": Reason.STALLED, "next_nodes": 2, "node": gang[0].node})
    after = status(after_one, avoided_nodes=[*nodes[1:], blamed])
    lines = decision.of_end(view, End(Rule.EVENTS, notice), before, after)
    assert [line.partition(":")[0] for line in lines] == [
        "start", "start", "rule", "cause", "cause", "set aside", "next", "next", "next",
    ]  # fmt: skip
    done = after_one.model_copy(update={"decision": lines})
    lost = Notice(Reason.NODE_LOST, "m", "n" * 253)
    for end in (End(Rule.LOST_NODE, lost), End(Rule.COMPLETION, Notice(Reason.COMPLETED, "m"))):
        lines = decision.with_later(done, end, at(20))
        done = done.model_copy(update={"decision": lines})
    attempts = [done.model_copy(update={"number": n}) for n in range(1, KEPT_ATTEMPTS + 1)]
    return DistillJobStatus(phase=Phase.RUNNING, attempt=KEPT_ATTEMPTS, attempts=attempts, avoided_nodes=nodes)


def test_twenty_attempts_of_the_worst_case_stay_far_below_etcds_limit() -> None:
    stored = worst_status()
    for one in stored.attempts:
        lines = one.decision or []
        assert len(lines) == DECISION_LINES
        assert all(len(line) <= DECISION_LETTERS and line.isprintable() for line in lines)
        assert lines[-1].startswith("later: ")
    records = sum(len(line) for one in stored.attempts for line in one.decision or ())
    assert records <= KEPT_ATTEMPTS * DECISION_LINES * DECISION_LETTERS == 40_000
    size = len(json.dumps(stored.to_wire(), ensure_ascii=False).encode())
    assert size < 256 * 1024, f"{size} bytes; etcd takes 1.5 MiB"


def test_the_pods_that_are_not_named_are_counted() -> None:
    gang = [pod(rank, **ended(10 + rank / 10, 137)) for rank in range(9)]
    lines = record(*gang, spec={"nodes": 9, "training": {"batch": 9}})
    assert lines[-1] == "set aside: 4 more pods"
    assert len([line for line in lines if line.startswith("set aside: ")]) == 5


# --- true: what it says is what the operator saw


def check_pod(text: str, view: Observed, number: int) -> PodFacts:
    found = POD.match(text)
    assert found is not None, text
    (seen,) = [p for p in view.pods_of(number) if p.name == found["name"]]
    assert (seen.node or "no node") == found["node"]
    times = {
        "node": seen.end and seen.end.at,
        "API server": seen.deleted_at,
        "control plane": seen.disruption and seen.disruption.at,
    }
    for time, clock in re.findall(r"(\S+Z) \(([^)]+)\)", text):
        moment = times[clock]
        assert moment is not None, text
        assert moment.strftime("%Y-%m-%dT%H:%M:%SZ") == time, text
    for code in re.findall(r"exit code (\d+)", text):
        assert seen.end is not None
        assert seen.end.exit_code == int(code)
    for kind in re.findall(r"DisruptionTarget (\w+)", text):
        assert seen.disruption is not None
        assert seen.disruption.reason == kind
    assert ("gone" in text.split(", ")) == seen.gone
    return seen


def check_record(view: Observed, before: DistillJobStatus, plan: Plan, elastic: int) -> None:
    """Compare every line that this pass has added with what it saw."""
    after = plan.status
    assert after is not None
    old = {one.number: one for one in before.attempts}
    for one in after.attempts:
        was = old.get(one.number)
        lines = (one.decision or [])[len((was.decision if was else None) or []) :]
        for line in lines:
            kind, _, text = line.partition(": ")
            if kind == "rule":
                rule, _, reason = text.rpartition(": ")
                assert (reason, rule) == (one.reason, Rule(rule))
            elif kind == "later":
                assert was is not None
                assert f"{one.reason} replaces {was.reason}" in text
            elif kind == "cause" and POD.match(text):
                seen = check_pod(text, view, one.number)
                assert seen.name in (one.message or "") or one.reason in (Reason.STALLED, Reason.CONFIG_INVALID)
                assert one.node in (seen.node, None)
            elif kind == "set aside" and " more pods" not in text:
                check_pod(text.partition(": ")[2], view, one.number)
            elif kind == "next" and "avoided until" in text:
                assert f"node {one.node} is" in text
                assert one.node in [node.node for node in after.avoided_nodes]
            elif kind == "next" and "instead of" in text:
                assert text == f"{one.next_nodes} nodes instead of {one.nodes}"
            elif kind == "start" and " of " in text:
                assert text.startswith(f"{one.nodes} of {elastic} nodes")
            elif kind == "start":
                assert all(node in text for node in one.avoids or [])
            else:
                assert kind in ("cause", "next", "set aside"), line


@dataclass
class Honest(Cluster):
    """The simulated cluster, in which every record is compared with what the pass saw."""

    checked: int = 0

    def carry_out(self, plan: Plan, seen: Observed, crash: str = "") -> None:
        if plan.status is not None:
            check_record(seen, self.dj.status, plan, self.dj.spec.nodes)
            assert make_plan(seen, at(self.seconds), self.settings) == plan, "planned again, the record is the same"
            self.checked += 1
        super().carry_out(plan, seen, crash)


STEPS = ["operate"] * 5 + ["controllers", "kubelets"] * 4 + ["train"] * 2 + ["commit", "wait", "less_room"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([*STEPS, *FAULTS, *OUTAGES, *CRASHES, "suspend", "resume"]), st.integers(0, 3)),
        max_size=60,
    ),
    st.booleans(),
)
def test_every_line_is_what_the_operator_saw(story: list[tuple[str, int]], elastic: bool) -> None:
    spec = {"recovery": {"maxFailures": 100, "maxRestartsWithoutProgress": 100}}
    size = {"nodes": 4, "elastic": {"minNodes": 1}} if elastic else {"nodes": 2}
    cluster = Honest(dj=job(volumes=VOLUMES, **size, **spec))
    for name, rank in story:
        cluster.step_world(name, rank)
    cluster.settle()
    assert cluster.checked > 0
