"""The last state of pods, from watch events.

Preempted pods can be gone within a second or two, before the next pass reads them; their last state is kept here until
their attempt has ended. After a restart of the operator the Job's condition has to do.
"""

from dataclasses import replace

from distill_operator.kube.objects import Object, pod_facts
from distill_operator.types.observed import PodFacts

Key = tuple[str, str]
"""Namespace and name of a DistillJob."""


class PodCache:
    """The last facts of every pod, by job."""

    def __init__(self) -> None:
        self._pods: dict[Key, dict[str, PodFacts]] = {}

    def note(self, key: Key, pod: Object, *, deleted: bool) -> None:
        """Store the pod of a watch event."""
        facts = pod_facts(pod, gone=deleted)
        self._pods.setdefault(key, {})[facts.uid] = facts

    def of(self, key: Key) -> dict[str, PodFacts]:
        """A copy of the facts, by pod UID."""
        return dict(self._pods.get(key, {}))

    def keep_only(self, key: Key, uids: set[str]) -> None:
        """Drop all other pods of the job."""
        pods = self._pods.get(key, {})
        kept = {uid: facts for uid, facts in pods.items() if uid in uids}
        if kept:
            self._pods[key] = kept
        else:
            self._pods.pop(key, None)


def with_departed(listed: list[PodFacts], noted: dict[str, PodFacts]) -> list[PodFacts]:
    """The listed pods, and those that were noted before the list was read and are not in it."""
    present = {pod.uid for pod in listed}
    return [*listed, *(replace(pod, gone=True) for uid, pod in noted.items() if uid not in present)]
