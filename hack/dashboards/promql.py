"""Pieces of PromQL that the panels share. The board's variables choose namespaces and jobs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from distill_api.constants import Phase
from distill_api.metrics import JOB_LABEL, OperatorMetric, TrainerMetric

OF_JOB: Final = f"namespace, {JOB_LABEL}"
"""The labels that name a job, for `by`."""
RANK: Final = "node_rank, local_rank"
NAME: Final = f"{{{{namespace}}}}/{{{{{JOB_LABEL}}}}}"
"""Legend of a job's series on a board of many jobs."""

GOODPUT_OF_JOB: Final = "distilljob:distill_goodput:ratio_rate1h"
GOODPUT_OF_NAMESPACE: Final = "namespace:distill_goodput:ratio_rate1h"
GOODPUT_OF_FLEET: Final = "fleet:distill_goodput:ratio_rate1h"
JOB_TIME_RATE: Final = "distilljob_kind:distill_operator_job_time_seconds:rate5m"
ACCELERATOR_TIME_RATE: Final = "distilljob_kind:distill_accelerator_seconds:rate5m"
"""What the chart's recording rules compute."""

PHASES: Final = tuple(Phase)
"""A phase's number in panels is its place in this list."""
BADPUT: Final = {"kind!=": "productive"}
WASTE: Final = {"kind!~": "productive|waiting_for_capacity"}
"""Time in which a job has its accelerators, but makes no steps that are kept."""
OWN_WORK: Final = {"phase=~": "data|teacher|forward"}
"""Time that no rank shares with the others: the one that has most of it is the straggler."""


@dataclass(frozen=True)
class Query:
    """A query and what its series are called."""

    expr: str
    legend: str


def of_job(metric: str, matchers: dict[str, str] | None = None) -> str:
    """The series of the chosen jobs. `matchers`: by label with its operator, = if none is named: {"kind!=": "x"}."""
    return _selected(metric, {"namespace=~": "$namespace", f"{JOB_LABEL}=~": f"${JOB_LABEL}", **(matchers or {})})


def of_namespace(metric: str, matchers: dict[str, str] | None = None) -> str:
    """The series of the chosen namespaces."""
    return _selected(metric, {"namespace=~": "$namespace", **(matchers or {})})


def newest(metric: str, matchers: dict[str, str] | None = None) -> str:
    """A number of the whole job: what rank 0 or the operator says."""
    return f"max({of_job(metric, matchers)})"


def rate(series: str) -> str:
    """Per second, over Grafana's window."""
    return f"rate({series}[$__rate_interval])"


def increase(series: str) -> str:
    """Over the time range of the board."""
    return f"increase({series}[$__range])"


def by(labels: str, aggregation: str, expr: str) -> str:
    """`aggregation` of `expr`, one for each combination of `labels`."""
    return f"{aggregation} by ({labels}) ({expr})"


def quantile(share: float, series: str, labels: str = "") -> str:
    """A quantile of histograms, one for each combination of `labels`. `series`: of the buckets."""
    return _quantile(share, rate(series), labels)


def quantiles(series: str, *shares: float) -> list[Query]:
    """One query for each quantile of histograms over Grafana's window: p50, p99 … `series`: of the buckets."""
    return _quantiles(rate(series), shares)


def quantiles_of_range(metric: str, *shares: float) -> list[Query]:
    """One query for each quantile of the operator's histogram in the time range of the board: p50, p99 …"""
    return _quantiles(increase(f"{metric}_bucket"), shares)


def job_time(matchers: dict[str, str] | None = None) -> str:
    """Seconds of the chosen namespaces' jobs in the time range of the board."""
    return increase(of_namespace(OperatorMetric.JOB_TIME, matchers))


def accelerator_hours(labels: str, matchers: dict[str, str]) -> str:
    """Hours of all accelerators in the time range of the board; the recorded rate is summed interval by interval."""
    series = of_namespace(ACCELERATOR_TIME_RATE, matchers)
    return by(labels, "sum", f"sum_over_time({series}[$__range:$__interval])") + " * $__interval_ms / 3.6e6"


def of_job_time(matchers: dict[str, str] | None = None) -> str:
    """Seconds of ranks per second, of the chosen job."""
    return rate(of_job(TrainerMetric.TIME, matchers))


def or_zero(expr: str, series: str) -> str:
    """`expr`, or 0 where it has no series but `series` has."""
    return f"{expr} or 0 * {series}"


def phase_number(of: Callable[[str, dict[str, str]], str]) -> str:
    """The phase of each job as a number: its place in PHASES. `of`: selects the jobs."""
    terms = (f"{index} * {of(OperatorMetric.JOB_PHASE, {'phase': phase})}" for index, phase in enumerate(PHASES))
    return by(OF_JOB, "max", " or ".join(terms))


def _quantiles(counts: str, shares: Sequence[float]) -> list[Query]:
    return [Query(_quantile(share, counts, ""), f"p{share * 100:g}") for share in shares]


def _quantile(share: float, counts: str, labels: str) -> str:
    together = ", ".join(filter(None, (labels, "le")))
    return f"histogram_quantile({share}, sum by ({together}) ({counts}))"


def _selected(metric: str, matchers: dict[str, str]) -> str:
    listed = (f'{label}{"" if label[-1] in "=~" else "="}"{value}"' for label, value in matchers.items())
    return f"{metric}{{{', '.join(listed)}}}"
