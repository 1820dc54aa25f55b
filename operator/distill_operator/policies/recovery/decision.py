"""The record of an attempt's decisions, for people who ask why: status.attempts[].decision.

It is written once, when the decision is made, from what was observed then, and so it says what nobody can look up
later: pods are gone within seconds. Lines begin with `start:` (nodes), `rule:` (which one ended it), `cause:` and
`set aside:` (pods, with everything that was seen of each and by whose clock, see types/clocks.py), `next:` (what
follows from it), `later:` (a better reason that was found while its pods terminated).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from distill_api.reasons import Reason
from distill_api.status import DECISION_LETTERS, DECISION_LINES, Attempt, DistillJobStatus
from distill_operator.policies.recovery import classify, exit_codes
from distill_operator.policies.recovery.classify import Certainty, Evidence
from distill_operator.types.actions import Notice
from distill_operator.types.clocks import NODE_SKEW, timestamp
from distill_operator.types.observed import JobFacts, Observed, PodFacts

ASIDE = 5
"""Lines about pods that are set aside; the last one has the number of those that are not named."""
LATER = 1
"""Lines that are kept for what is found later."""


class Rule(StrEnum):
    """The rules that end an attempt, in the order in which they are asked."""

    COMPLETION = "rank 0's completion record"
    QUEUE = "a queue suspended the Job"
    EVENTS = "the first event in pods and Job"
    LOST_NODE = "a lost node"
    SUSPEND = "spec.suspend"
    DEADLINE = "spec.activeDeadlineSeconds, by the operator's clock"
    TEMPLATE = "what spec.template must not have"
    REFUSAL = "a refusal of the API server that lasts"
    SCALE = "spec.nodes, which was lowered"
    START = "a pod that cannot start, by the operator's clock"
    SCHEDULING = "pods without a node or not started in time, by the operator's clock"
    STALL = "no progress for too long, by the operator's clock"
    GROWTH = "nodes that placeholder pods hold"


@dataclass(frozen=True)
class End:
    """Why an attempt ends, and by which rule."""

    rule: Rule
    notice: Notice


def of_start(before: DistillJobStatus, attempt: Attempt, asked: int, *, kept: bool) -> list[str]:
    """Why the attempt starts with other nodes than all `asked` ones; empty if it does not. `before` is the status
    without it; `kept`: its Job is the one that a queue kept.
    """
    last = before.attempts[-1] if before.attempts else None
    lines = []
    resized = last is not None and attempt.nodes == last.next_nodes
    if last is not None and resized and last.reason == Reason.GROWING:
        lines.append(
            f"start: {attempt.nodes} of {asked} nodes: placeholders held more nodes than attempt {last.number} had"
        )
    elif last is not None and resized and last.reason == Reason.SCALED_DOWN:
        lines.append(f"start: {attempt.nodes} of {asked} nodes: spec.nodes was lowered from {last.nodes}")
    elif last is not None and resized:
        lines.append(f"start: {attempt.nodes} of {asked} nodes: attempt {last.number} found no room for {last.nodes}")
    elif attempt.nodes < asked:
        lines.append(f"start: {attempt.nodes} of {asked} nodes, as the attempt before")
    if attempt.avoids:
        why = {node.node: f" ({node.reason} in attempt {node.attempt})" for node in before.avoided_nodes}
        nodes = ", ".join(f"{node}{why.get(node, '')}" for node in attempt.avoids)
        lines.append(f"start: avoids {nodes}" + (", as the Job that the queue kept does" if kept else ""))
    return [_cut(line) for line in lines]


def of_end(observed: Observed, end: End, before: DistillJobStatus, after: DistillJobStatus) -> list[str]:
    """The lines about the end of the newest attempt of `after`, which is `before` with this end."""
    ended = after.attempts[-1]
    scene = _scene(observed, ended.number)
    why = [f"rule: {end.rule}: {end.notice.reason}", *list(_cause(end, scene))[:2]]
    aside, follows = list(_set_aside(end, scene)), list(_next(before, after))
    room = max(min(DECISION_LINES - LATER - len(ended.decision or ()) - len(why) - len(follows), ASIDE), 1)
    if len(aside) > room:
        aside = [*aside[: room - 1], f"set aside: {len(aside) - room + 1} more pods"]
    return [*(ended.decision or ()), *(_cut(line) for line in (*why, *aside, *follows))][: DECISION_LINES - LATER]


def with_later(old: Attempt, end: End, now: datetime) -> list[str]:
    """The lines with the reason that replaces the stored one of the attempt `old`."""
    line = f"later: {end.rule}: {end.notice.reason} replaces {old.reason} at {timestamp(now)}, operator's clock"
    if end.notice.node is not None:
        line += f": node {end.notice.node}"
    return [*(old.decision or ())[: DECISION_LINES - LATER], _cut(line)]


@dataclass(frozen=True)
class _Scene:
    """What the pods of an attempt and its Job show."""

    pods: tuple[PodFacts, ...]
    job: JobFacts | None
    first: Evidence | None
    events: dict[str, Evidence]
    """The first event of each pod that shows one, by the pod's UID."""

    @property
    def earliest(self) -> datetime | None:
        """When the first of the events happened among which the cause is chosen."""
        echo = self.first is not None and self.first.certainty == Certainty.ECHO
        return min((e.at for e in self.events.values() if (e.certainty == Certainty.ECHO) == echo), default=None)


def _scene(observed: Observed, attempt: int) -> _Scene:
    pods, job = observed.pods_of(attempt), observed.job_of(attempt)
    events = {pod.uid: found[0] for pod in pods if (found := classify.evidence_of(pod, pods, job))}
    return _Scene(pods, job, classify.first_event(pods, job), events)


def _cause(end: End, scene: _Scene) -> Iterator[str]:
    first, job = scene.first, scene.job
    if end.rule != Rule.EVENTS:
        node = end.notice.node
        yield from (f"cause: {_seen(pod)}" for pod in scene.pods if node is not None and pod.node == node)
    elif first is not None:
        yield f"cause: {_seen(first.pod)}"
        if end.notice.reason in exit_codes.REASONS.values():
            yield f"cause: {first.notice.reason}, which a rule of spec.recovery.exitCodes makes {end.notice.reason}"
        elif first.notice.reason != end.notice.reason:
            yield f"cause: a rank waited in vain for others, so {first.notice.reason} counts as {end.notice.reason}"
    elif job is None:
        yield "cause: the attempt's Job is gone, and no pod shows another event"
    elif job.failing_at is not None:
        why = f"condition of Job {job.name}: {job.failure_reason} at {timestamp(job.failing_at)} (control plane)"
        yield f"cause: no pod shows one; {why}"
    else:
        yield f"cause: no pod shows one; Job {job.name} is complete"


def _set_aside(end: End, scene: _Scene) -> Iterator[str]:
    """Pods that show an event which is not the cause, and why it is not."""
    if end.rule == Rule.COMPLETION:
        return
    earliest = scene.earliest
    for pod in scene.pods:
        is_cause = end.notice.node is not None and pod.node == end.notice.node
        if end.rule == Rule.EVENTS:
            is_cause = scene.first is not None and pod.uid == scene.first.pod.uid
        why = None if is_cause else _why_not(end, scene, pod, earliest)
        if why is not None:
            yield f"set aside: {why}: {_seen(pod)}"


def _why_not(end: End, scene: _Scene, pod: PodFacts, earliest: datetime | None) -> str | None:
    event, first = scene.events.get(pod.uid), scene.first
    if event is None:
        echo = classify.is_echo_deletion(pod, scene.pods, scene.job)
        return "deleted by the Job controller after another pod failed" if echo else None
    if end.rule != Rule.EVENTS or first is None or earliest is None:
        return "the lost node explains it" if end.rule == Rule.LOST_NODE else "not shown to be the cause"
    if event.certainty == Certainty.ECHO and first.certainty != Certainty.ECHO:
        return f"{event.notice.reason} follows from another end"
    if event.at - earliest > NODE_SKEW:
        return f"{event.notice.reason} {(event.at - earliest).total_seconds():.0f} s after the first event"
    return f"{event.notice.reason} at about the same time, and {_PRECEDENCE[first.certainty]}"


_PRECEDENCE = {
    Certainty.DISRUPTION: "a disruption counts first",
    Certainty.DELETION: "a deletion counts before an end",
    Certainty.OWN_END: "the other one is not later",
    Certainty.ECHO: "the other one is not later",
}


def _next(before: DistillJobStatus, after: DistillJobStatus) -> Iterator[str]:
    ended = after.attempts[-1]
    was, now = ({node.node: node for node in status.avoided_nodes} for status in (before, after))
    for name, node in now.items():
        if node.attempt == ended.number:
            yield f"next: node {name} is avoided until {timestamp(node.until)}, operator's clock"
    back = [name for name in was if name not in now]
    if back:
        yield f"next: no longer avoided: {', '.join(back)}"
    if ended.next_nodes is not None:
        yield f"next: {ended.next_nodes} nodes instead of {ended.nodes}"


def _seen(pod: PodFacts) -> str:
    """Everything that was seen of a pod's end, each with the clock that its time is from."""
    facts = [f"{pod.name} on {pod.node or 'no node'}"]
    if pod.disruption is not None:
        facts.append(f"DisruptionTarget {pod.disruption.reason} {timestamp(pod.disruption.at)} (control plane)")
    if pod.deleted_at is not None:
        facts.append(f"deletion {timestamp(pod.deleted_at)} (API server)")
    if pod.end is not None:
        end = pod.end
        facts.append(f"{end.container} exit code {end.exit_code} {end.reason} {timestamp(end.at)} (node)")
    elif pod.phase == "Failed" and pod.reason:
        facts.append(f"kubelet: {pod.reason}")
    if pod.waiting:
        facts.append(f"waiting: {pod.waiting}")
    if pod.gone:
        facts.append("gone")
    return ", ".join(facts)


def _cut(line: str) -> str:
    """One line that can be printed, of at most DECISION_LETTERS letters."""
    line = "".join(letter if letter.isprintable() else " " for letter in line)
    return line if len(line) <= DECISION_LETTERS else line[: DECISION_LETTERS - 1] + "…"
