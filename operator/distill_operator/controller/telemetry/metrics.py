"""The operator's metrics; their names are in the contract."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from distill_api.constants import Outcome, Phase
from distill_api.job import DistillJob
from distill_api.metrics import JOB_LABEL, OperatorMetric
from distill_api.reasons import Reason
from distill_api.status import DistillJobStatus
from distill_operator.controller.telemetry.job_time import JobTime
from distill_operator.kube.pod_cache import Key
from distill_operator.status.events import restarted
from distill_operator.types import attempts

_MINUTES = (120, 180, 300, 450, 600, 900, 1200, 1800, 2700, 3600)
_HOURS = (7200, 14400, 28800, 57600, 86400)
RESTART_BUCKETS = (1, 2, 5, 10, 15, 20, 30, 45, 60, 90, *_MINUTES, *_HOURS)
WAIT_BUCKETS = (1, 2, 5, 10, 20, 30, 60, *_MINUTES, *_HOURS)
"""Bounds in seconds, near each other: a quantile is known to a bucket. A restart may wait for nodes, too."""

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter, which nothing reads

ENDS = [(r.facts.outcome, r) for r in Reason if r.facts.outcome not in (None, Outcome.SUCCEEDED)]
"""How attempts can end without success."""


class Metrics:
    """The metrics of passes and jobs. The series of a job are removed with it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of_job = ["namespace", JOB_LABEL]

        def gauge(name: str, text: str, labels: list[str]) -> Gauge:
            return Gauge(name, text, labels, registry=self.registry)

        def histogram(name: str, text: str, **options: object) -> Histogram:
            return Histogram(name, text, registry=self.registry, **options)  # type: ignore[arg-type]

        self._jobs = gauge(OperatorMetric.JOBS, "DistillJobs by phase.", ["namespace", "phase"])
        self._phase = gauge(OperatorMetric.JOB_PHASE, "1 for the phase that a job is in.", [*of_job, "phase"])
        self._accelerators = gauge(
            OperatorMetric.ACCELERATORS, "Accelerators that a job's pods occupy.", [*of_job, "resource"]
        )
        self._committed = gauge(OperatorMetric.COMMITTED_STEP, "Newest committed step of a job.", of_job)
        self._restarts = Counter(
            OperatorMetric.RESTARTS,
            "Attempts that ended without success, by outcome and reason.",
            [*of_job, "outcome", "reason"],
            registry=self.registry,
        )
        self._lost_steps = Counter(
            OperatorMetric.LOST_STEPS, "Steps that had to be repeated.", of_job, registry=self.registry
        )
        self._goodput = gauge(OperatorMetric.GOODPUT_RATIO, "Productive fraction of a job's time.", of_job)
        self._time = JobTime(self.registry)
        self._queue_wait = histogram(
            OperatorMetric.QUEUE_WAIT,
            "Seconds from the start of an attempt until all its pods had nodes, time in a queue included.",
            buckets=WAIT_BUCKETS,
        )
        self._restart = histogram(
            OperatorMetric.RESTART_SECONDS,
            "Seconds from the end of an attempt to the first step of the next.",
            buckets=RESTART_BUCKETS,
        )
        self._first_step = histogram(
            OperatorMetric.TIME_TO_FIRST_STEP,
            "Seconds from a job's first attempt to its first step.",
            buckets=RESTART_BUCKETS,
        )
        self._pass = histogram(OperatorMetric.PASS_SECONDS, "Duration of a pass over one job.")
        self._errors = Counter(OperatorMetric.PASS_ERRORS, "Passes that failed with an error.", registry=self.registry)
        self._polls = Counter(
            OperatorMetric.POLLS, "Requests to rank 0s for their status.", ["result"], registry=self.registry
        )
        self._silent = Gauge(
            OperatorMetric.SILENT_JOBS, "Jobs whose rank 0 does not answer the operator.", registry=self.registry
        )
        self._last_pass = Gauge(
            OperatorMetric.LAST_PASS, "Unix time at which the last pass succeeded.", registry=self.registry
        )
        self._leads = Gauge(OperatorMetric.LEADS, "1 if this operator makes passes, else 0.", registry=self.registry)
        gauge(OperatorMetric.BUILD_INFO, "Version of the operator.", ["version"]).labels(_version()).set(1)
        self._phases: dict[Key, Phase] = {}

    def passed(self, seconds: float) -> None:
        """A pass succeeded."""
        self._pass.observe(seconds)
        self._last_pass.set_to_current_time()

    def polled(self, answered: bool) -> None:
        """A rank 0 was asked for its status."""
        self._polls.labels("answered" if answered else "missed").inc()

    def silent_jobs(self, count: Callable[[], float]) -> None:
        """Where the number of silent jobs is read."""
        self._silent.set_function(count)

    def leads(self, leads: bool) -> None:
        """Whether this process makes passes. One that does not shows no jobs."""
        self._leads.set(leads)
        if not leads:
            for key in list(self._phases):
                self.forget(key)

    def crd_matches(self, matches: bool) -> None:
        """Whether the CRD in the cluster has the operator's own schema."""
        name, text = OperatorMetric.CRD_MATCHES, "1 if the CRD has this operator's schema, else 0."
        Gauge(name, text, registry=self.registry).set(matches)

    def failed(self) -> None:
        """A pass failed."""
        self._errors.inc()

    def state(self, key: Key, job: DistillJob) -> None:
        """Set the gauges of a job."""
        status = job.status
        if key not in self._phases:
            self._start_at_zero(key)
        self._set_phase(key, status.phase)
        occupied = attempts.nodes_occupied(status) * job.spec.accelerators.per_node
        self._accelerators.labels(*key, job.spec.accelerators.resource).set(occupied)
        if status.progress is not None:
            self._committed.labels(*key).set(status.progress.committed_step)
        if status.goodput is not None:
            self._goodput.labels(*key).set(status.goodput.ratio or 0.0)
            self._time.show(key)

    def transition(self, key: Key, old: DistillJobStatus, new: DistillJobStatus) -> None:
        """Count the changes between two stored statuses of a job."""
        for attempt in restarted(old, new):
            self._restarts.labels(*key, attempt.outcome, attempt.reason).inc()
        self._time.add(key, old.goodput, new.goodput)
        before = {attempt.number: attempt for attempt in old.attempts}
        ended = {a.number: a.ended_at for a in new.attempts if a.reason != Reason.SUSPENDED_BY_USER}
        for attempt in new.attempts:
            earlier = before.get(attempt.number)
            if attempt.lost_steps and (earlier is None or earlier.lost_steps is None):
                self._lost_steps.labels(*key).inc(attempt.lost_steps)
            if attempt.scheduled_at is not None and (earlier is None or earlier.scheduled_at is None):
                waited = (attempt.scheduled_at - attempt.started_at).total_seconds()
                self._queue_wait.observe(max(0.0, waited))  # two clocks: the cluster's and the operator's
            if attempt.running_at is None or (earlier is not None and earlier.running_at is not None):
                continue
            previous_end = ended.get(attempt.number - 1)  # None after a suspension, which is no restart time
            if previous_end is not None:
                self._restart.observe((attempt.running_at - previous_end).total_seconds())
            elif attempt.number == 1 and new.started_at is not None:
                self._first_step.observe((attempt.running_at - new.started_at).total_seconds())

    def jobs(self) -> set[Key]:
        """The jobs that have series."""
        return set(self._phases)

    def forget(self, key: Key) -> None:
        """The job is gone."""
        self._set_phase(key, None)
        self._time.forget(key)
        for metric in (self._committed, self._lost_steps, self._restarts, self._goodput, self._accelerators):
            metric.remove_by_labels(dict(zip(("namespace", JOB_LABEL), key, strict=True)))

    def _start_at_zero(self, key: Key) -> None:
        """An increase from nothing to 1 is none to Prometheus."""
        self._lost_steps.labels(*key)
        for outcome, reason in ENDS:
            self._restarts.labels(*key, outcome, reason)

    def _set_phase(self, key: Key, phase: Phase | None) -> None:
        old = self._phases.pop(key, None)
        if phase is not None:
            self._phases[key] = phase
        if old is not None and old != phase:
            self._phase.remove(*key, old)
        if phase is not None:
            self._phase.labels(*key, phase).set(1)
        for changed in {old, phase} - {None}:
            count = sum(1 for (ns, _), p in self._phases.items() if ns == key[0] and p == changed)
            self._jobs.labels(key[0], changed).set(count)


def _version() -> str:
    try:
        return version("distill-operator")
    except PackageNotFoundError:  # a source tree that is not installed
        return "unknown"
