"""What events say about pods: why they wait, and why they were refused. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from distill_operator.kube import texts
from distill_operator.kube.objects import NEVER, Object, parse_time
from distill_operator.types.observed import PodFacts, Rejection

REPEATED = timedelta(seconds=150)
"""Events about a pod that are older than its newest one by more than this say nothing any more: the kubelet repeats
what lasts about every two minutes."""


def event_time(event: Object) -> datetime:
    """When an event last happened."""
    last = (event.get("series") or {}).get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return parse_time(last) if last else NEVER


def with_start_event(pod: PodFacts, events: Iterable[Object]) -> PodFacts:
    """The pod with why it waits for its volumes or its network, by its Warning events: the newest one, or one shortly
    before it that names an object which does not exist. The kubelet repeats both kinds every two minutes.
    """
    told = sorted((e for e in events if e.get("reason") in texts.START_EVENTS), key=event_time)
    if not told:
        return pod
    recent = [e for e in told if event_time(told[-1]) - event_time(e) <= REPEATED]
    clear = [e for e in recent if texts.lasts(e["reason"], e.get("message") or "")]
    event = (clear or recent)[-1]
    return replace(pod, waiting=event["reason"], waiting_message=event.get("message") or "")


def rejection_of_pods(job_name: str, messages: Sequence[str]) -> Rejection | None:
    """Why pods of the Job were refused, by the Job controller's FailedCreate events, oldest first: the newest counts.

    What an earlier pod was refused for has passed.
    """
    if not messages:
        return None
    text = texts.refusal_of_pod(messages[-1])
    return Rejection(f"pods of Job {job_name}", text, texts.reason_of_refusal(text))
