"""Kubernetes without an API server: Job controller, kubelets, nodes and the training, moved step by step by a test."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from distill_api.job import DistillJob
from distill_api.pod.report import TerminationMessage
from distill_api.reasons import Reason
from distill_operator.types.observed import ContainerEnd, Disruption, JobFacts, PodFacts, Rejection
from tests.support.operator.lives import Volume
from tests.support.operator.samples import UID, at, done, job, report

GRACE = 10
TOTAL_STEPS = 20

VOLUMES = {
    "checkpoints": {"claimTemplate": {"resources": {"requests": {"storage": "1Gi"}}}},
    "data": {"claimName": "digits"},
    "models": {"claimName": "runs"},
}

ENDS = {
    "oom": (137, "OOMKilled", None),
    "kill": (137, "Error", None),
    "peer_lost": (1, "Error", report("failed", Reason.PEER_LOST)),
    "error": (1, "Error", report("failed", Reason.TRAINER_ERROR)),
    "ecc": (1, "Error", report("failed", Reason.ACCELERATOR_FAILED)),
    "mistake": (78, "Error", report("permanent", Reason.CONFIG_INVALID)),
    "unknown_format": (78, "Error", report("permanent", Reason.CHECKPOINT_FORMAT_UNKNOWN)),
    "no_record": (0, "Completed", None),
    "fatal_code": (42, "Error", None),
    "ignored_code": (75, "Error", None),
}
"""Ends of the training container: exit code, the kubelet's reason, termination message."""
EXIT_CODES = [{"values": [42], "action": "FailJob"}, {"values": [75], "action": "Ignore"}]
"""Rules for two of them, where a job has rules."""
DISRUPTIONS = {"preempt": "PreemptionByScheduler", "evict": "EvictionByEvictionAPI"}

NODES = 6
UNREACHABLE_SECONDS = 100
"""After how long the pods of a dark node are deleted: the node controller's patience and the pods' toleration."""


@dataclass
class World(Volume):
    """What is there and happens without the operator. `dj` is the stored DistillJob."""

    dj: DistillJob = field(default_factory=lambda: job(volumes=VOLUMES))
    claims: tuple[str, ...] = ()
    """Claims made from templates: without them no pod starts."""
    jobs: dict[str, JobFacts] = field(default_factory=dict)
    noted: dict[str, PodFacts] = field(default_factory=dict)
    """The operator's memory of pods: lost with its process."""
    seconds: int = 0
    moved_at: int = 0
    """When the training last made progress, or was started."""
    untracked: set[str] = field(default_factory=set)
    """Pods deleted because their Job was suspended: they do not count as failed."""
    uids: int = 0
    completions: dict[str, int] = field(default_factory=dict)
    """Pods of each Job, by its UID."""
    holders: dict[str, PodFacts] = field(default_factory=dict)
    """Placeholder pods."""
    room: int = NODES
    """Nodes that pods of the job may come to."""
    dark: dict[str, int] = field(default_factory=dict)
    """Nodes without power, and since when."""
    spoiled: tuple[str, str] | None = None
    """Why containers cannot start, in the kubelets' words: reason and message."""
    quota: bool = False
    """Whether a quota refuses pods."""
    clocks: dict[str, int] = field(default_factory=dict)
    """By node: seconds by which its clock is ahead of the cluster's."""
    total_steps: int = TOTAL_STEPS
    """Steps of the whole training."""

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
            elif facts.suspended:
                for pod in pods:
                    self.untracked.add(pod.uid)
                    self.terminate(pod)
            elif facts.failing_at is None and not facts.complete:
                self.control(facts, pods)
        owners = {j.uid for j in self.jobs.values()}
        for pod in [p for p in self.pods.values() if p.owner_uid not in owners]:
            if pod.owner_uid or pod.deleted_at is not None:
                self.terminate(pod)

    def control(self, facts: JobFacts, pods: list[PodFacts]) -> None:
        pods = [p for p in pods if p.live or p.uid not in self.untracked]
        failed = [p for p in pods if p.phase == "Failed"]
        if failed:
            disrupted = next((p for p in failed if p.disruption), None)
            reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
            named = [78, *(code for rule in self.dj.spec.recovery.exit_codes for code in rule.values)]
            coded = next((p for p in failed if p.end and p.end.exit_code in named), None)
            if disrupted or coded:
                reason = "PodFailurePolicy"
            if disrupted:
                message = f"Pod team/{disrupted.name} has condition DisruptionTarget matching FailJob rule at index 0"
            elif coded and coded.end:
                message = f"Container trainer for pod team/{coded.name} failed with exit code {coded.end.exit_code} "
                message += "matching FailJob rule at index 1"
            self.jobs[facts.name] = replace(
                facts, failing_at=at(self.seconds), failure_reason=reason, failure_message=message
            )
            for pod in pods:
                if pod.live:
                    self.terminate(pod)
        elif pods and all(p.phase == "Succeeded" for p in pods) and len(pods) == self.completions[facts.uid]:
            self.jobs[facts.name] = replace(facts, complete=True)
        else:
            if self.quota:
                return
            have = {p.rank for p in pods}
            for rank in sorted(set(range(self.completions[facts.uid])) - have):
                self.uids += 1
                self.set_pod(
                    PodFacts(
                        f"tiny-a{facts.attempt}-{rank}", f"pod-{self.uids}", facts.attempt, "Pending",
                        at(self.seconds), owner_uid=facts.uid, job_uid=UID, rank=rank,
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

    def free_node(self, avoids: Sequence[str] = ()) -> str | None:
        """A node that has power and no pod of the job, and is not avoided."""
        taken = {p.node for p in (*self.pods.values(), *self.holders.values()) if p.live} | self.dark.keys()
        return next((f"node{n}" for n in range(self.room) if f"node{n}" not in {*taken, *avoids}), None)

    def rejection(self, attempt: int, pods: int) -> Rejection | None:
        """What the Job's events say if the attempt lacks pods."""
        facts = next((job for job in self.jobs.values() if job.attempt == attempt), None)
        if not self.quota or facts is None or facts.failing_at is not None or pods >= facts.nodes:
            return None
        return Rejection(f"Job {facts.name}", "exceeded quota: pods", Reason.QUOTA_EXCEEDED)

    def ended(self, pod: PodFacts, code: int, reason: str, told: TerminationMessage | None) -> PodFacts:
        """The pod with the end of its container, by its node's clock."""
        at_node = at(self.seconds + self.clocks.get(pod.node or "", 0))
        phase = "Succeeded" if code == 0 else "Failed"
        return replace(pod, phase=phase, end=ContainerEnd("trainer", code, at_node, reason, told))

    def kubelets(self, rank: int | None = None) -> None:
        """Start what waits, and end what was asked to: all pods, or only those of one rank, when others are slow."""
        for pod in [pod for pod in self.pods.values() if rank in (None, pod.rank)]:
            if pod.phase == "Pending" and pod.deleted_at is None:
                if "tiny-checkpoints" not in self.claims:
                    continue
                avoids = next((job.avoids for job in self.jobs.values() if job.uid == pod.owner_uid), ())
                node = pod.node or self.free_node(avoids)
                if node is None:
                    self.set_pod(pod, unschedulable="0/6 nodes are available")
                    continue
                reason, message = self.spoiled or ("", "")
                self.set_pod(
                    pod, phase="Pending" if reason else "Running", scheduled_at=pod.scheduled_at or at(self.seconds),
                    node=pod.node or node, ip=f"10.0.0.{pod.rank}", unschedulable=None, ready=not reason,
                    waiting=reason, waiting_message=message,
                )  # fmt: skip
                self.moved_at = self.seconds
                if self.pods[pod.uid].running and pod.rank == 0:
                    self.claim(self.pods[pod.uid])
            elif pod.live and pod.deleted_at is not None and pod.node not in self.dark:
                self.stop(pod)
        for uid, pod in list(self.holders.items()):
            node = self.free_node(self.jobs["tiny-grow"].avoids if "tiny-grow" in self.jobs else ())
            if pod.phase == "Pending" and node is not None:
                self.holders[uid] = replace(pod, phase="Running", scheduled_at=at(self.seconds), node=node)

    # --- what the training does

    def gang(self) -> list[PodFacts]:
        """The gang that trains what can be committed: all of its pods run."""
        owner = next((p.owner_uid for p in self.rank0s if p.running and self.may_commit(p)), None)
        pods = [p for p in self.pods.values() if p.running and p.owner_uid == owner]
        whole = len(pods) == self.completions.get(owner or "", 0) and not any(p.node in self.dark for p in pods)
        return sorted(pods, key=lambda p: p.rank or 0) if whole else []

    def train(self) -> None:
        if self.gang():
            self.moved_at = self.seconds
            self.step = min(self.total_steps, max(self.step, self.committed) + 3)
            if self.step >= self.total_steps:
                self.finish()

    def claim(self, pod: PodFacts) -> None:
        """A rank 0 starts: it takes its number from the volume, and goes on from what is committed."""
        if not self.takes_number(pod):
            self.end_as_superseded(pod)

    def end_as_superseded(self, pod: PodFacts) -> None:
        self.set_pod(self.ended(pod, 1, "Error", report("failed", Reason.SUPERSEDED, attempt=pod.attempt)))

    def commit(self) -> None:
        """Every rank 0 commits, or ends because the fence does not let it."""
        for pod in self.rank0s:
            if self.may_commit(pod):
                self.committed = max(self.committed, self.step)
            elif pod.node not in self.dark:
                self.end_as_superseded(pod)

    def stop(self, pod: PodFacts) -> None:
        """A pod that was asked to end does; its gang's rank 0 commits first."""
        gang = [p for p in self.rank0s if p.owner_uid == pod.owner_uid]
        if any(self.may_commit(p) for p in gang):
            self.committed = max(self.committed, self.step)
        elif pod in gang:
            self.end_as_superseded(pod)
            return
        self.set_pod(self.ended(pod, 143, "Error", report("stopped", Reason.STOPPED)))

    def finish(self) -> None:
        gang = self.gang()
        self.committed = max(self.committed, self.step)
        for pod in gang:
            self.set_pod(self.ended(pod, 0, "Completed", done(pod.attempt) if pod.rank == 0 else None))

    # --- what goes wrong

    def spoil(self) -> None:
        self.spoiled = ("CreateContainerConfigError", 'secret "wandb" not found')

    def repair(self) -> None:
        self.spoiled = None

    def fault(self, kind: str, rank: int) -> None:
        pods = [p for p in self.pods.values() if p.running and p.rank == rank]
        for pod in pods[:1]:
            now, due = at(self.seconds), at(self.seconds + GRACE)
            if kind in DISRUPTIONS:
                gone = Disruption(DISRUPTIONS[kind], "for a test", now)
                self.set_pod(pod, disruption=gone, deleted_at=now, end_due_at=due)
            elif kind == "delete_pod":
                self.set_pod(pod, deleted_at=now, end_due_at=due)
            elif kind in ENDS:
                self.set_pod(self.ended(pod, *ENDS[kind]))
            elif kind == "kubelet_evicts":
                self.set_pod(pod, phase="Failed", reason="Evicted", message="low on memory")
        if kind == "delete_job":
            self.jobs = {name: replace(facts, deleting=True) for name, facts in self.jobs.items()}
        if kind in ("queue_evicts", "queue_admits"):
            for facts in [job for job in self.jobs.values() if job.attempt and not job.inert]:
                self.jobs[facts.name] = replace(facts, suspended=kind == "queue_evicts")
        if kind in ("orphan_job", "delete_job_in_background"):
            for facts in [job for job in self.jobs.values() if job.attempt]:
                del self.jobs[facts.name]
                for pod in self.pods_of(facts) if kind == "orphan_job" else ():
                    self.set_pod(pod, owner_uid="")

    def outage(self, kind: str, rank: int) -> None:
        """A pod's node loses power, or all get it back: then their kubelets end what they were asked to."""
        if kind == "lighten":
            self.dark = {}
        for pod in [p for p in self.pods.values() if kind == "darken" and p.live and p.rank == rank and p.node]:
            self.dark.setdefault(pod.node or "", self.seconds)
