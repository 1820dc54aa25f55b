"""A job's time by kind as counters.

status.goodput is revised: steps become lost work when their attempt has ended, a start turns out to be training when
rank 0 answers again. A counter cannot go back, so the seconds that come next are counted for the kind that is short,
until the counters agree with the status again. Their sum always does.
"""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter

from distill_api.metrics import JOB_LABEL, OperatorMetric
from distill_api.status import Goodput, Spent
from distill_operator.kube.pod_cache import Key
from distill_operator.status.goodput import KINDS

Seconds = dict[str, float]


class JobTime:
    """Counts from zero in every process what the stored statuses add."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("namespace", JOB_LABEL, "kind")
        self._counter = Counter(OperatorMetric.JOB_TIME, "Seconds of a job's time by kind.", labels, registry=registry)
        self._short: dict[Key, Seconds] = {}

    def show(self, key: Key) -> None:
        """Let the series of the job start."""
        for kind in KINDS:
            self._counter.labels(*key, kind.removesuffix("_seconds"))

    def add(self, key: Key, old: Goodput | None, new: Goodput | None) -> None:
        """Count the time between two stored statuses of a job."""
        before, now = old or Spent(), new or Spent()
        short = self._short.get(key, {})
        short = {kind: short.get(kind, 0.0) + getattr(now, kind) - getattr(before, kind) for kind in KINDS}
        counted = growth(short)
        for kind, seconds in counted.items():
            self._counter.labels(*key, kind.removesuffix("_seconds")).inc(seconds)
        self._short[key] = {kind: short[kind] - counted.get(kind, 0.0) for kind in KINDS}

    def forget(self, key: Key) -> None:
        """The job is gone."""
        self._short.pop(key, None)
        self._counter.remove_by_labels(dict(zip(("namespace", JOB_LABEL), key, strict=True)))


def growth(short: Mapping[str, float]) -> Seconds:
    """The seconds to count now, by kind, none below zero: in sum as many as `short` has, for the kinds that are short.

    `short`: by kind the seconds that are not counted yet, below zero where too many were.
    """
    new = sum(short.values())
    owed = {kind: seconds for kind, seconds in short.items() if seconds > 0}
    return {kind: seconds * new / sum(owed.values()) for kind, seconds in owed.items()} if new > 0 else {}
