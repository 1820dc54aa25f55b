"""A namespace with claims, and the steps of a job's life in it."""

from typing import Any

from distill_api.constants import Phase
from distill_api.pod.report import TerminationMessage, TrainerStatus
from distill_api.reasons import Reason
from distill_api.status import Attempt, DistillJobStatus, Progress, Result
from tests.support.apiserver.api import Api, Object, make_namespace, wait_for
from tests.support.apiserver.nodes import Kubelet, Rank0
from tests.support.apiserver.operatorprocess import OperatorProcess

SIZE = {"storage": "1Gi"}
RESULT = Result(checkpoint="tiny/weights/best.pt", sha256="ab" * 32, student_map=0.51, teacher_map=0.6)


def manifest(name: str = "tiny", **spec: Any) -> Object:
    return {
        "apiVersion": "distilljob.dev/v1alpha1",
        "kind": "DistillJob",
        "metadata": {"name": name},
        "spec": {
            "student": {"model": "yolo26n.yaml"},
            "teacher": {"model": "teacher.pt"},
            "dataset": {"config": "digits.yaml"},
            "nodes": 2,
            "accelerators": {"perNode": 2},
            "device": "cpu",
            "volumes": {
                "checkpoints": {"claimName": "runs"},
                "data": {"claimName": "digits"},
                "models": {"claimName": "runs"},
            },
            "recovery": {"gracePeriodSeconds": 10},
            **spec,
        },
    }


class Team:
    """One namespace, used by one test."""

    def __init__(self, api: Api, ns: str, operator: OperatorProcess, rank0: Rank0, patience: float = 1.0) -> None:
        """`patience`: how much longer than a test to wait for each step of a life."""
        self.api, self.ns, self.operator, self.rank0 = api, ns, operator, rank0
        self.patience = patience
        self.kubelet = Kubelet(api, ns)

    def prepare(self, labels: dict[str, str] | None = None) -> None:
        """Make the namespace with its two claims."""
        make_namespace(self.api, self.ns, **labels or {})
        self.make_claims("runs", "digits")

    def make_claims(self, *names: str, mode: str = "ReadWriteMany") -> None:
        """Claims, each bound to a volume of its own."""
        for name in names:
            self.make_volume(name, mode)
        for name in names:  # a claim that comes before its volume is known is looked at again only after 15 s
            wait_for(lambda name=name: self._phase("PersistentVolume", f"{self.ns}-{name}") == "Available")
            spec = {"accessModes": [mode], "resources": {"requests": SIZE}, "storageClassName": ""}
            claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}
            self.api.create(claim, self.ns)
        for name in names:
            wait_for(lambda name=name: self._phase("PersistentVolumeClaim", name) == "Bound", 40)

    def make_volume(self, claim: str, mode: str = "ReadWriteMany") -> None:
        """A volume that only a claim of this name gets."""
        spec = {
            "capacity": SIZE,
            "accessModes": [mode],
            "hostPath": {"path": "/nowhere"},
            "claimRef": {"namespace": self.ns, "name": claim},
            "storageClassName": "",
        }
        volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"{self.ns}-{claim}"}}
        self.api.create({**volume, "spec": spec})

    def _phase(self, kind: str, name: str) -> str:
        obj = self.api.get(kind, self.ns, name) or {}
        return str((obj.get("status") or {}).get("phase"))

    # --- the job

    def submit(self, **spec: Any) -> None:
        self.api.create(manifest(**spec), self.ns)

    def raw(self) -> Object | None:
        return self.api.get("DistillJob", self.ns, "tiny")

    @property
    def status(self) -> DistillJobStatus:
        return DistillJobStatus.model_validate((self.raw() or {}).get("status") or {})

    def attempt(self) -> Attempt:
        return self.status.attempts[-1]

    def reaches(self, phase: Phase, seconds: float = 20) -> DistillJobStatus:
        return wait_for(
            lambda: status if (status := self.status).phase == phase else None,
            seconds * self.patience,
            lambda: f"{phase} is wanted: {self.status.to_wire()}\n{self.operator.tail()}",
        )

    def condition(self, kind: str) -> Object:
        conditions = (self.raw() or {})["status"]["conditions"]
        return next((c for c in conditions if c["type"] == kind), {})

    def waits_because(self, reason: str, kind: str = "Running") -> Object:
        """The condition, once it gives this reason."""

        def told() -> Object | None:
            conditions = ((self.raw() or {}).get("status") or {}).get("conditions") or ()
            return next((c for c in conditions if (c["type"], c["reason"]) == (kind, reason)), None)

        return wait_for(told, 20, lambda: (self.status.to_wire(), self.operator.tail()))

    def events(self) -> list[str]:
        of_job = "involvedObject.kind=DistillJob"
        events = self.api.list("Event", self.ns, fieldSelector=of_job)
        return [e["reason"] for e in sorted(events, key=lambda e: int(e["metadata"]["resourceVersion"]))]

    # --- its pods

    def pods(self, attempt: int | None = None) -> list[Object]:
        selector = "distilljob.dev/job=tiny" + (f",distilljob.dev/attempt={attempt}" if attempt else "")
        pods = self.api.list("Pod", self.ns, labelSelector=selector)
        return sorted(pods, key=lambda p: p["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"])

    def scheduled(self, attempt: int) -> list[Object]:
        """The attempt's two pods, once the scheduler has placed both."""

        def placed() -> list[Object] | None:
            pods = self.pods(attempt)
            return pods if len(pods) == 2 and all(p["spec"].get("nodeName") for p in pods) else None

        return wait_for(placed, 30 * self.patience, lambda: (self.status.to_wire(), self.operator.tail()))

    def run_gang(self, attempt: int) -> list[Object]:
        """Both pods run."""
        pods = self.scheduled(attempt)
        for rank, pod in enumerate(pods):
            self.kubelet.run(pod, self.rank0.ip if rank == 0 else "127.0.0.1")
        return pods

    def train(self, attempt: int, step: int, committed: int = 0, resumed: int = 0) -> DistillJobStatus:
        """The gang makes steps, and the operator learns of it."""
        self.run_gang(attempt)
        self.say(attempt, step, committed, resumed)
        self.reaches(Phase.RUNNING)
        return wait_for(
            lambda: status if (status := self.status).attempts[-1].step == step else None,
            15 * self.patience,
            lambda: f"step {step} is wanted: {self.status.to_wire()}",
        )

    def say(self, attempt: int, step: int, committed: int = 0, resumed: int = 0, uid: str = "") -> None:
        self.rank0.status = TrainerStatus(
            job="tiny",
            uid=uid or (self.raw() or {})["metadata"]["uid"],
            attempt=attempt,
            rank=0,
            world_size=4,
            state="training",
            resumed_from_step=resumed,
            steps_this_attempt=step - resumed,
            progress=self.progress(step, committed),
        )

    def progress(self, step: int, committed: int) -> Progress:
        return Progress(
            epoch=step // 50,
            epochs=4,
            step=step,
            steps=200,
            committed_step=committed,
            images_per_second=123.0,
            eta_seconds=80,
            distillation_loss=1.25,
            student_map=0.4,
            teacher_map=0.6,
        )

    def finish(self, attempt: int) -> None:
        """Every rank ends well, and rank 0 leaves its record."""
        for rank, pod in enumerate(self.pods(attempt)):
            report = TerminationMessage(
                outcome="done",
                reason=Reason.COMPLETED,
                attempt=attempt,
                step=200,
                committed_step=200,
                progress=self.progress(200, 200),
                result=RESULT if rank == 0 else None,
            )
            self.kubelet.end(pod, 0, report)

    def stop_pods(self, attempt: int, committed: int) -> None:
        """Pods whose deletion was asked for stop as the trainer does: they commit, exit 143 and are gone."""

        def leave() -> bool:
            pods = self.pods(attempt)
            for pod in pods:
                if not pod["metadata"].get("deletionTimestamp"):
                    continue
                if pod["status"]["phase"] == "Running":
                    self.kubelet.end(pod, 143, stopped(attempt, committed))
                self.kubelet.remove(pod)
            return not any(p["status"]["phase"] in ("Pending", "Running") for p in self.pods(attempt))

        wait_for(leave, 20 * self.patience, lambda: (self.status.to_wire(), self.operator.tail()))


def stopped(attempt: int, committed: int) -> TerminationMessage:
    return TerminationMessage(
        outcome="stopped", reason=Reason.STOPPED, attempt=attempt, step=committed, committed_step=committed
    )
