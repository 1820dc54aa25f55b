"""The last facts of pods, as watch events told them.

A preempted gang's pods vanish within a second or two, faster than a pass may come; their last facts are kept here
until their attempt is closed. Nothing is decided here, and after a restart the Job's own condition has to do.
"""

from dataclasses import replace

from distill_operator.kube.objects import Object, pod_facts
from distill_operator.types.observed import PodFacts

Key = tuple[str, str]
"""Namespace and name of a DistillJob."""


class PodCache:
    """The newest facts of every pod, by job."""

    def __init__(self) -> None:
        self._pods: dict[Key, dict[str, PodFacts]] = {}

    def note(self, key: Key, pod: Object, *, deleted: bool) -> None:
        """Remember what a watch event told about a pod of this job."""
        facts = pod_facts(pod, gone=deleted)
        self._pods.setdefault(key, {})[facts.uid] = facts

    def of(self, key: Key) -> dict[str, PodFacts]:
        """Facts by pod UID at this moment."""
        return dict(self._pods.get(key, {}))

    def keep_only(self, key: Key, uids: set[str]) -> None:
        """Forget all other pods of the job."""
        pods = self._pods.get(key, {})
        kept = {uid: facts for uid, facts in pods.items() if uid in uids}
        if kept:
            self._pods[key] = kept
        else:
            self._pods.pop(key, None)


def with_departed(listed: list[PodFacts], noted: dict[str, PodFacts]) -> list[PodFacts]:
    """The pods in the API, and those that were noted before the list was asked for and are not in it any more."""
    present = {pod.uid for pod in listed}
    return [*listed, *(replace(pod, gone=True) for uid, pod in noted.items() if uid not in present)]
