"""The job board's row about checkpoints."""

from dashboards.board import Row
from dashboards.panels import RED, graph, number
from dashboards.promql import Query, by, increase, newest, of_job, quantiles
from distill_api.metrics import TrainerMetric as Trainer


def row() -> Row:
    """How much work is at risk, and what it costs to save it."""
    age = f"time() - ({newest(Trainer.LAST_CHECKPOINT_TIME)} > 0)"
    commits = by("result", "sum", f"increase({of_job(Trainer.CHECKPOINT_SAVES)}[$__rate_interval])")
    stall, persist = (of_job(f"{metric}_bucket") for metric in (Trainer.CHECKPOINT_STALL, Trainer.CHECKPOINT_PERSIST))
    return Row(
        "Checkpoints",
        [
            graph(
                "Age of the last checkpoint",
                "Work that a hard kill would cost now, and the limit of the alert: three times the interval.",
                Query(age, "age"),
                Query(f"3 * {newest(Trainer.CHECKPOINT_INTERVAL)}", "limit"),
                unit="s",
                dashed="limit",
            ),
            graph(
                "Stall by checkpoints",
                "Time that training stands still for a snapshot.",
                *quantiles(stall, 0.5, 0.99),
                unit="s",
                interval="1m",
            ),
            graph(
                "Time to commit",
                "From snapshot to a durable checkpoint: write, fsync, digest, rename, in the background.",
                *quantiles(persist, 0.5, 0.99),
                unit="s",
                interval="1m",
            ),
            graph(
                "Commits by result",
                "Checkpoints that were committed and that failed.",
                Query(commits, "{{result}}"),
                unit="none",
                bars=True,
                stack=True,
                interval="1m",
            ),
            graph(
                "Last checkpoint and start of the attempt",
                "Newest durable step, and the step that each attempt resumed from.",
                Query(newest(Trainer.LAST_CHECKPOINT_STEP) + " > 0", "committed"),
                Query(by("attempt", "max", of_job(Trainer.RESUMED_FROM_STEP)), "attempt {{attempt}} from"),
            ),
            number(
                "Fallbacks",
                "Damaged checkpoints that were skipped when the attempt resumed: storage lost or changed data.",
                Query(f"round(sum({increase(of_job(Trainer.CHECKPOINT_FALLBACKS))}))", "fallbacks"),
                unit="none",
                limits=((None, "green"), (1, RED)),
                width=8,
                height=8,
                sparkline=False,
            ),
        ],
    )
