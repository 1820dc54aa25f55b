"""The fleet board's row about the operator itself."""

from dashboards.board import Row
from dashboards.panels import ORANGE, RED, Panel, graph, number
from dashboards.promql import Query, quantiles, rate
from distill_api.metrics import OperatorMetric as Operator


def row() -> Row:
    """Whether the operator itself is well."""
    polls = {result: rate(f'{Operator.POLLS}{{result="{result}"}}') for result in ("answered", "missed")}
    buckets = f"{Operator.PASS_SECONDS}_bucket"
    return Row(
        "Operator",
        [
            graph(
                "Duration of passes",
                "Time of one reconcile pass over one job.",
                *quantiles(buckets, 0.5, 0.99),
                unit="s",
                width=6,
            ),
            graph(
                "Passes, polls and errors",
                "Passes that succeeded or failed (each is retried), and requests to rank 0s for their status; "
                "some are missed while gangs start.",
                Query(f"sum({rate(Operator.PASS_SECONDS + '_count')})", "passes"),
                Query(f"sum({rate(Operator.PASS_ERRORS)})", "errors"),
                Query(f"sum({polls['answered']})", "polls answered"),
                Query(f"sum({polls['missed']})", "polls missed"),
                unit="ops",
                width=6,
            ),
            *_numbers(),
        ],
    )


def _numbers() -> list[Panel]:
    last_pass = f"time() - (max({Operator.LAST_PASS}) > 0)"
    return [
        number(
            "Since the last pass",
            "Time since a pass succeeded. Active jobs get one at least every minute; without them it may grow.",
            Query(last_pass, "age"),
            unit="s",
            limits=((None, "green"), (120, ORANGE), (600, RED)),
            width=3,
            height=8,
        ),
        number(
            "Silent jobs",
            "Jobs whose rank 0 has not answered the last three requests. A few: look at these jobs. Most of them: "
            "look at the operator's network; nothing is ended meanwhile.",
            Query(f"sum({Operator.SILENT_JOBS})", "silent"),
            limits=((None, "green"), (1, ORANGE)),
            width=3,
            height=8,
        ),
        number(
            "Leaders",
            "Operators that lead. Anything but 1 for minutes means that no operator works, or that two do.",
            Query(f"sum({Operator.LEADS})", "leaders"),
            limits=((None, RED), (1, "green"), (2, RED)),
            width=3,
            height=8,
        ),
        number(
            "CRD",
            "1 if the cluster's CRD has the operator's schema, else 0.",
            Query(f"min({Operator.CRD_MATCHES})", "matches"),
            limits=((None, RED), (1, "green")),
            width=3,
            height=8,
            sparkline=False,
        ),
    ]
