"""Kubernetes without an API server: Job controller, kubelets, nodes and the training, moved step by step by a test."""

from dataclasses import dataclass, field, replace
from typing import Any

from distill_api.job import DistillJob
from distill_api.reasons import Reason
from distill_operator.types.observed import ContainerEnd, Disruption, JobFacts, PodFacts
from tests.support.operator.samples import at, done, job, report

GRACE = 10
TOTAL_STEPS = 20

VOLUMES = {
    "checkpoints": {"claimTemplate": {"resources": {"requests": {"storage": "1Gi"}}}},
    "data": {"claimName": "digits"},
    "models": {"claimName": "runs"},
}

NODES = 6
UNREACHABLE_SECONDS = 100
"""After how long the pods of a dark node are deleted: the node controller's patience and the pods' toleration."""


@dataclass
class World:
    """What is there and happens without the operator. `dj` is the stored DistillJob."""

    dj: DistillJob = field(default_factory=lambda: job(volumes=VOLUMES))
    claims: tuple[str, ...] = ()
    """Claims made from templates: without them no pod starts."""
    jobs: dict[str, JobFacts] = field(default_factory=dict)
    pods: dict[str, PodFacts] = field(default_factory=dict)
    noted: dict[str, PodFacts] = field(default_factory=dict)
    """The operator's memory of pods: lost with its process."""
    seconds: int = 0
    committed: int = 0
    """The step on the checkpoints volume."""
    step: int = 0
    uids: int = 0
    completions: dict[str, int] = field(default_factory=dict)
    """Pods of each Job, by its name."""
    holders: dict[str, PodFacts] = field(default_factory=dict)
    """Placeholder pods."""
    room: int = NODES
    """Nodes that pods of the job may come to."""
    dark: dict[str, int] = field(default_factory=dict)
    """Nodes without power, and since when."""

    # --- what Kubernetes does by itself

    def set_pod(self, pod: PodFacts, *, seen: bool = True, **fields: Any) -> None:
        pod = replace(pod, **fields)
        self.pods[pod.uid] = pod
        if seen:
            self.noted[pod.uid] = pod

    def pods_of(self, job_facts: JobFacts) -> list[PodFacts]:
        return [p for p in self.pods.values() if p.owner_uid == job_facts.uid]

    def remove(self, pod: PodFacts) -> None:
        del self.pods[pod.uid]

    def controllers(self) -> None:
        """Job controller and garbage collector, once."""
        self.node_controller()
        for name, facts in list(self.jobs.items()):
            if name == "tiny-grow":
                if facts.deleting:
                    self.holders = {}
                    del self.jobs[name]
                continue
            pods = self.pods_of(facts)
            if facts.deleting:
                for pod in pods:
                    self.terminate(pod)
                if not self.pods_of(facts):
                    del self.jobs[name]
            elif facts.failing_at is None and not facts.complete:
                self.control(facts, pods)
        orphans = {j.uid for j in self.jobs.values()}
        for pod in [p for p in self.pods.values() if p.owner_uid not in orphans]:
            self.terminate(pod)

    def control(self, facts: JobFacts, pods: list[PodFacts]) -> None:
        failed = [p for p in pods if p.phase == "Failed"]
        if failed:
            disrupted = next((p for p in failed if p.disruption), None)
            reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
            if disrupted:
                reason = "PodFailurePolicy"
                message = f"Pod team/{disrupted.name} has condition DisruptionTarget matching FailJob rule at index 0"
            self.jobs[facts.name] = replace(
                facts, failing_at=at(self.seconds), failure_reason=reason, failure_message=message
            )
            for pod in pods:
                if pod.live:
                    self.terminate(pod)
        elif pods and all(p.phase == "Succeeded" for p in pods) and len(pods) == self.completions[facts.name]:
            self.jobs[facts.name] = replace(facts, complete=True)
        else:
            have = {p.rank for p in pods}
            for rank in sorted(set(range(self.completions[facts.name])) - have):
                self.uids += 1
                self.set_pod(
                    PodFacts(
                        f"tiny-a{facts.attempt}-{rank}", f"pod-{self.uids}", 0, "Pending", at(self.seconds),
                        owner_uid=facts.uid, rank=rank,
                    )
                )  # fmt: skip

    def terminate(self, pod: PodFacts) -> None:
        """Deletion by a controller, in two steps: asked for, then gone."""
        if pod.deleted_at is None and pod.live:
            self.set_pod(pod, deleted_at=at(self.seconds), end_due_at=at(self.seconds + GRACE))
        elif not pod.live or pod.node not in self.dark:
            self.remove(pod)

    def end_overdue_pods(self) -> None:
        """A node that has power kills what is past its grace period, and says so."""
        for pod in list(self.pods.values()):
            overdue = pod.end_due_at is not None and at(self.seconds) >= pod.end_due_at
            if overdue and pod.live and pod.node not in self.dark:
                self.remove(pod)

    def node_controller(self) -> None:
        """Pods of nodes that have been silent for long are deleted; their nodes do not hear of it."""
        for pod in list(self.pods.values()):
            since = self.dark.get(pod.node or "")
            if since is None or self.seconds - since < UNREACHABLE_SECONDS:
                continue
            if pod.live and pod.deleted_at is None:
                gone = Disruption("DeletionByTaintManager", "the node is unreachable", at(self.seconds))
                self.set_pod(pod, disruption=gone)
                self.terminate(self.pods[pod.uid])

    def free_node(self) -> str | None:
        """A node that has power and no pod of the job."""
        taken = {p.node for p in (*self.pods.values(), *self.holders.values()) if p.live} | self.dark.keys()
        return next((f"node{n}" for n in range(self.room) if f"node{n}" not in taken), None)

    def kubelets(self) -> None:
        """Start what waits, and end what was asked to."""
        for pod in list(self.pods.values()):
            if pod.phase == "Pending" and pod.deleted_at is None:
                if "tiny-checkpoints" not in self.claims:
                    continue
                node = self.free_node()
                if node is None:
                    self.set_pod(pod, unschedulable="0/6 nodes are available")
                    continue
                self.set_pod(
                    pod, phase="Running", scheduled_at=at(self.seconds), node=node, ip=f"10.0.0.{pod.rank}",
                    unschedulable=None,
                )  # fmt: skip
            elif pod.live and pod.deleted_at is not None and pod.node not in self.dark:
                self.commit()
                end = ContainerEnd("trainer", 143, at(self.seconds), "Error", report("stopped", Reason.STOPPED))
                self.set_pod(pod, phase="Failed", end=end)
        for uid, pod in list(self.holders.items()):
            node = self.free_node()
            if pod.phase == "Pending" and node is not None:
                self.holders[uid] = replace(pod, phase="Running", scheduled_at=at(self.seconds), node=node)

    # --- what the training does

    def gang(self) -> list[PodFacts]:
        pods = [p for p in self.pods.values() if p.running]
        owner = next((j.name for j in self.jobs.values() if pods and j.uid == pods[0].owner_uid), "")
        whole = len(pods) == self.completions.get(owner, 0) and not any(p.node in self.dark for p in pods)
        return sorted(pods, key=lambda p: p.rank or 0) if whole else []

    def train(self) -> None:
        if self.gang():
            self.step = min(TOTAL_STEPS, max(self.step, self.committed) + 3)
            if self.step >= TOTAL_STEPS:
                self.finish()

    def commit(self) -> None:
        self.committed = max(self.committed, self.step)

    def finish(self) -> None:
        self.commit()
        for pod in self.gang():
            record = done(self.dj.status.attempt) if pod.rank == 0 else None
            end = ContainerEnd("trainer", 0, at(self.seconds), "Completed", record)
            self.set_pod(pod, phase="Succeeded", end=end)

    # --- what goes wrong

    def fault(self, kind: str, rank: int) -> None:
        pods = [p for p in self.pods.values() if p.running and p.rank == rank]
        for pod in pods[:1]:
            now, due = at(self.seconds), at(self.seconds + GRACE)
            if kind in ("preempt", "evict"):
                reason = "PreemptionByScheduler" if kind == "preempt" else "EvictionByEvictionAPI"
                self.set_pod(pod, disruption=Disruption(reason, "for a test", now), deleted_at=now, end_due_at=due)
            elif kind == "delete_pod":
                self.set_pod(pod, deleted_at=now, end_due_at=due)
            elif kind in ("oom", "kill"):
                word = "OOMKilled" if kind == "oom" else "Error"
                self.set_pod(pod, phase="Failed", end=ContainerEnd("trainer", 137, now, word))
            elif kind == "peer_lost":
                told = report("failed", Reason.PEER_LOST)
                self.set_pod(pod, phase="Failed", end=ContainerEnd("trainer", 1, now, "Error", told))
        if kind == "delete_job":
            self.jobs = {name: replace(facts, deleting=True) for name, facts in self.jobs.items()}

    def outage(self, kind: str, rank: int) -> None:
        """A pod's node loses power, or all get it back: then their kubelets end what they were asked to."""
        if kind == "lighten":
            self.dark = {}
        for pod in [p for p in self.pods.values() if kind == "darken" and p.live and p.rank == rank and p.node]:
            self.dark.setdefault(pod.node or "", self.seconds)
