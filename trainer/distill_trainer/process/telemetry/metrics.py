"""Prometheus metrics of one rank. Metric names come from distill_api; the scrape configuration adds job labels."""

import platform
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from distill_api.metrics import TrainerMetric as Name

_STEP_BUCKETS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 30, 60)
_STALL_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_PERSIST_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)
_RATE_WINDOW = 50

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter, which nothing reads


class TrainerMetrics:
    """One method per event. Rank 0 also exposes the metrics of the whole job."""

    def __init__(self, *, rank: int, world_size: int, checkpoint_interval: float, versions: Mapping[str, str]) -> None:
        """`versions`: labels of the build info metric, such as torch and ultralytics."""
        self.registry = CollectorRegistry()
        self._rank = rank
        self._world_size = world_size
        self._recent: deque[tuple[int, float]] = deque(maxlen=_RATE_WINDOW)
        self._planned_steps = 0
        self.checkpoint_stall_seconds = 0.0
        self._losses = self._gauge(Name.LOSS, "Loss of the last step by component, weights included", "component")
        self._images = self._counter(Name.IMAGES, "Images this rank has trained on")
        self._steps = self._counter(Name.STEPS, "Global steps finished in this attempt")
        self._skipped = self._counter(Name.SKIPPED_STEPS, "Steps without an optimizer step, by reason", "reason")
        self._time = self._counter(Name.TIME, "Seconds of this rank by phase", "phase")
        self._duration = self._histogram(Name.STEP_DURATION, "Duration of a step in seconds", _STEP_BUCKETS)
        self._epoch = self._gauge(Name.EPOCH, "Epochs finished")
        self._step = self._gauge(Name.STEP, "Steps finished since the start of the job")
        self._learning_rate = self._gauge(Name.LEARNING_RATE, "Learning rate by parameter group", "group")
        self._grad_norm = self._gauge(Name.GRAD_NORM, "Norm of the gradient before clipping")
        self._neck_ratio = self._gauge(
            Name.NECK_GRADIENT_RATIO, "Norm of distillation's gradient at the neck, unscaled, over the task's", "level"
        )
        self._neck_cosine = self._gauge(
            Name.NECK_GRADIENT_COSINE, "Cosine of distillation's and the task's gradient at the neck", "level"
        )
        self._amp_scale = self._gauge(Name.AMP_SCALE, "Loss scale of fp16 training")
        self._gpu_memory = self._gauge(
            Name.GPU_MEMORY, "Most bytes of device memory that PyTorch has reserved at a time"
        )
        self._gauge(Name.WORLD_SIZE, "Ranks of the gang").set(world_size)
        self._execution = self._gauge(Name.EXECUTION, "Execution number of the gang; 0 until this rank knows it")
        labels = {"python": platform.python_version(), **versions}
        build = Gauge(Name.BUILD_INFO, "Versions, as labels", tuple(labels), registry=self.registry)
        build.labels(**labels).set(1)
        if rank == 0:
            self._add_job_metrics(checkpoint_interval)

    def _add_job_metrics(self, checkpoint_interval: float) -> None:
        self._rate = self._gauge(Name.IMAGES_PER_SECOND, "Images per second over all ranks")
        self._planned = self._gauge(Name.STEPS_PLANNED, "Steps of the whole job")
        self._ratio = self._gauge(Name.PROGRESS_RATIO, "Share of the steps that are finished")
        self._evaluation = self._gauge(Name.EVAL_MAP, "mAP at the last validation", "model", "iou")
        self._resumed = self._gauge(Name.RESUMED_FROM_STEP, "Committed step that this attempt started from")
        self._interval = self._gauge(Name.CHECKPOINT_INTERVAL, "Seconds between checkpoints, as set or chosen")
        self._interval.set(checkpoint_interval)
        self._saves = self._counter(Name.CHECKPOINT_SAVES, "Checkpoints by result", "result")
        self._fallbacks = self._counter(Name.CHECKPOINT_FALLBACKS, "Damaged checkpoints skipped on resume")
        self._stall = self._histogram(Name.CHECKPOINT_STALL, "Seconds that a snapshot blocked training", _STALL_BUCKETS)
        self._persist = self._histogram(
            Name.CHECKPOINT_PERSIST, "Seconds from snapshot to durable checkpoint", _PERSIST_BUCKETS
        )
        self._last_step = self._gauge(Name.LAST_CHECKPOINT_STEP, "Step of the newest committed checkpoint")
        self._last_time = self._gauge(Name.LAST_CHECKPOINT_TIME, "Time of the newest committed checkpoint")
        for result in ("committed", "failed"):
            self._saves.labels(result)

    def execution(self, number: int) -> None:
        """The gang has this execution number."""
        self._execution.set(number)

    def step(self, *, images: int, seconds: float, step: int, epoch: int) -> None:
        """A global step is finished: images of this rank, duration in seconds, steps and epochs finished so far."""
        self._images.inc(images)
        self._steps.inc()
        self._duration.observe(seconds)
        self._step.set(step)
        self.epoch(epoch)
        self._recent.append((images, seconds))
        if self._rank == 0:
            self._rate.set(self.images_per_second or 0.0)
            if self._planned_steps:
                self._ratio.set(step / self._planned_steps)

    def epoch(self, finished: int) -> None:
        """So many epochs are finished."""
        self._epoch.set(finished)

    @property
    def images_per_second(self) -> float | None:
        """Images per second over all ranks, averaged over recent steps; None before the first step."""
        seconds = sum(duration for _, duration in self._recent)
        return self._world_size * sum(images for images, _ in self._recent) / seconds if seconds else None

    def phase(self, name: str, seconds: float) -> None:
        """Add time to a phase: data, teacher, forward, backward, optimizer, validation, checkpoint or start."""
        self._time.labels(name).inc(max(0.0, seconds))
        if name == "checkpoint":
            self.checkpoint_stall_seconds += max(0.0, seconds)

    def losses(self, components: Mapping[str, float]) -> None:
        """Losses of the last step: box, cls, dfl, dis …"""
        for component, value in components.items():
            self._losses.labels(component).set(value)

    def learning_rates(self, groups: Mapping[str, float]) -> None:
        """Learning rates by group: pg0, pg1 …"""
        for group, value in groups.items():
            self._learning_rate.labels(group).set(value)

    def grad_norm(self, value: float) -> None:
        """Norm of the gradient of the last step, before clipping."""
        self._grad_norm.set(value)

    def neck_gradients(self, ratios: Sequence[float], cosines: Sequence[float]) -> None:
        """Averages by level: distillation's gradient over the task's, in norm, and the cosine of both."""
        for level, (ratio, cosine) in enumerate(zip(ratios, cosines, strict=True)):
            self._neck_ratio.labels(str(level)).set(ratio)
            self._neck_cosine.labels(str(level)).set(cosine)

    def amp_scale(self, value: float) -> None:
        """Loss scale of fp16 training."""
        self._amp_scale.set(value)

    def skipped(self, reason: str) -> None:
        """A step was skipped, without an optimizer step."""
        self._skipped.labels(reason).inc()

    def gpu_memory(self, reserved: int) -> None:
        """Bytes of device memory reserved by PyTorch."""
        self._gpu_memory.set(reserved)

    def planned(self, steps: int) -> None:
        """Steps of the whole job."""
        self._planned_steps = steps
        if self._rank == 0:
            self._planned.set(steps)

    def resumed(self, step: int, committed_at: datetime | None = None) -> None:
        """The attempt starts from this committed step; 0 for a fresh start."""
        self._step.set(step)
        if self._rank == 0:
            self._resumed.set(step)
            if committed_at is not None:
                self._last_step.set(step)
                self._last_time.set(committed_at.timestamp())

    def evaluated(self, model: str, *, map50: float, map50_95: float) -> None:
        """Validation result of "student" or "teacher"."""
        if self._rank == 0:
            self._evaluation.labels(model, "50").set(map50)
            self._evaluation.labels(model, "50-95").set(map50_95)

    def checkpoint_interval(self, seconds: float) -> None:
        """Checkpoints are now committed every `seconds`."""
        if self._rank == 0:
            self._interval.set(seconds)

    def checkpoint_committed(self, step: int, at: datetime, seconds: float) -> None:
        """A checkpoint was committed, `seconds` after its snapshot."""
        self._saves.labels("committed").inc()
        self._persist.observe(seconds)
        self._last_step.set(step)
        self._last_time.set(at.timestamp())

    def checkpoint_stalled(self, seconds: float) -> None:
        """A snapshot blocked training for `seconds`."""
        self._stall.observe(seconds)

    def checkpoint_failed(self) -> None:
        """A commit failed."""
        self._saves.labels("failed").inc()

    def checkpoint_fell_back(self) -> None:
        """A damaged checkpoint was skipped on resume."""
        self._fallbacks.inc()

    def exposition(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, registry=self.registry, buckets=buckets)
