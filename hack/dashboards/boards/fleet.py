"""Fleet: what the cluster's jobs make of their time and accelerators, after the model of ML goodput boards."""

from dashboards.board import FLEET, JOB, Board, Row, choice
from dashboards.boards import health
from dashboards.panels import KINDS, ORANGE, RED, YELLOW, Panel, bars, dial, graph, listing, number, phases
from dashboards.promql import (
    BADPUT,
    GOODPUT_OF_FLEET,
    GOODPUT_OF_JOB,
    GOODPUT_OF_NAMESPACE,
    JOB_TIME_RATE,
    NAME,
    OF_JOB,
    WASTE,
    Query,
    accelerator_hours,
    by,
    increase,
    job_time,
    of_namespace,
    phase_number,
    quantiles_of_range,
)
from distill_api.metrics import OperatorMetric as Operator
from distill_api.metrics import TrainerMetric as Trainer

ACTIVE = "Starting|Running|Recovering"
WAITING = "Pending|Queued"
NEEDS_RULES = "needs the chart's recording rules"
SHARE = ((None, RED), (0.5, ORANGE), (0.75, YELLOW), (0.9, "green"))
DISRUPTED = {"outcome": "Disrupted"}
LINK = f"/d/{JOB}?${{__url_time_range}}&var-namespace=${{__data.fields.Namespace}}&var-distilljob=${{__value.raw}}"


def in_phase(phases_: str) -> str:
    """Number of jobs in these phases."""
    return f"sum({of_namespace(Operator.JOBS, {'phase=~': phases_})}) or vector(0)"


def restarts(labels: str, matchers: dict[str, str] | None = None) -> str:
    """Attempts that ended before their job was done, in the time range of the board."""
    return f"round({by(labels, 'sum', increase(of_namespace(Operator.RESTARTS, matchers)))})"


def best(series: str) -> str:
    """The highest value in the time range of the board, of jobs that have ended, too."""
    return f"max_over_time({series}[$__range])"


def score(model: str) -> str:
    """mAP50-95 of the student or the teacher of each job."""
    return best(of_namespace(Trainer.EVAL_MAP, {"model": model, "iou": "50-95"}))


def now() -> Row:
    """The state of the fleet in eight numbers."""
    goodput = f"sum({job_time({'kind': 'productive'})}) / sum({job_time()})"
    return Row(
        "Now",
        [
            dial(
                "Goodput",
                "Share of all jobs' time, in the time range of the board, that went into steps whose work was kept.",
                Query(goodput, "goodput"),
                limits=SHARE,
            ),
            number(
                "Goodput of the last hour",
                "The same over a rolling hour, for all namespaces.",
                Query(GOODPUT_OF_FLEET, "goodput"),
                unit="percentunit",
                limits=SHARE,
                none=NEEDS_RULES,
            ),
            *_counts(),
            number(
                "Accelerators in use",
                "GPUs (or what spec.accelerators asks for) that the pods of jobs occupy.",
                Query(f"sum({of_namespace(Operator.ACCELERATORS)}) or vector(0)", "accelerators"),
                limits=((None, "blue"),),
            ),
            number(
                "Wasted accelerator-hours",
                "Accelerators occupied while no step was made whose work was kept: restarts, lost work, stalls for "
                "checkpoints, validations; in the time range of the board.",
                Query(f"sum({accelerator_hours(OF_JOB, WASTE)})", "hours"),
                unit="none",
                limits=((None, ORANGE),),
                sparkline=False,
                none=NEEDS_RULES,
            ),
            number(
                "Disruptions",
                "Attempts that the cluster ended in the time range of the board: preemptions, drains, lost nodes.",
                Query(f"round(sum({increase(of_namespace(Operator.RESTARTS, DISRUPTED))}))", "disruptions"),
                unit="none",
                limits=((None, ORANGE),),
                sparkline=False,
            ),
            number(
                "Failed jobs",
                "Jobs in the phase Failed that still exist. Their condition Failed says why.",
                Query(in_phase("Failed"), "failed"),
                limits=((None, "green"), (1, RED)),
            ),
        ],
    )


def _counts() -> list[Panel]:
    return [
        number(
            "Active jobs",
            "Jobs that start, train or recover.",
            Query(in_phase(ACTIVE), "active"),
        ),
        number(
            "Waiting jobs",
            "Jobs that a queue holds, or that cannot create their pods yet.",
            Query(in_phase(WAITING), "waiting"),
            limits=((None, "blue"),),
        ),
    ]


def goodput() -> Row:
    """Where the fleet's time goes."""
    share = f"{by('kind', 'sum', of_namespace(JOB_TIME_RATE))} / scalar(sum({of_namespace(JOB_TIME_RATE)}))"
    return Row(
        "Goodput",
        [
            graph(
                "Rolling goodput",
                "Share of the time of the last hour that went into steps whose work was kept, of each namespace and of "
                "each job.",
                Query(of_namespace(GOODPUT_OF_NAMESPACE), "{{namespace}}"),
                Query(of_namespace(GOODPUT_OF_JOB), NAME),
                unit="percentunit",
                width=12,
                high=1,
            ),
            graph(
                "Where the time goes",
                "Share of each kind in the jobs' time. All but productive is badput.",
                Query(share, "{{kind}}"),
                unit="percentunit",
                width=12,
                stack=True,
                high=1,
                names=KINDS,
            ),
            bars(
                "Badput by cause",
                "Time in the time range of the board in which jobs made no steps that were kept, by kind.",
                Query(by("kind", "sum", job_time(BADPUT)), "{{kind}}"),
                names=KINDS,
            ),
            bars(
                "Badput by job",
                "The same by job, waits for nodes left out.",
                Query(f"topk(10, {by(OF_JOB, 'sum', job_time(WASTE))})", NAME),
                limits=((None, ORANGE),),
            ),
            bars(
                "Wasted accelerator-hours by job",
                "Hours of all accelerators that a job occupied while it made no steps that were kept.",
                Query(f"topk(10, {accelerator_hours(OF_JOB, WASTE)})", NAME),
                unit="none",
                limits=((None, RED),),
            ),
        ],
    )


def jobs() -> Row:
    """Every job: its phases, and its numbers with a link to its board."""
    table = {
        "Phase": Query(phase_number(of_namespace), ""),
        "Progress": Query(by(OF_JOB, "max", best(of_namespace(Trainer.PROGRESS_RATIO))), ""),
        "Goodput": Query(by(OF_JOB, "max", of_namespace(Operator.GOODPUT_RATIO)), ""),
        "Images/s": Query(by(OF_JOB, "max", of_namespace(Trainer.IMAGES_PER_SECOND)), ""),
        "Student mAP": Query(by(OF_JOB, "max", score("student")), ""),
        "Teacher mAP": Query(by(OF_JOB, "max", score("teacher")), ""),
        "Accelerators": Query(by(OF_JOB, "sum", of_namespace(Operator.ACCELERATORS)), ""),
        "Restarts": Query(restarts(OF_JOB), ""),
    }
    shares = dict.fromkeys(("Progress", "Goodput", "Student mAP", "Teacher mAP"), "percentunit")
    return Row(
        "Jobs",
        [
            phases("Phases", "The phase of every job, over time.", Query(phase_number(of_namespace), NAME)),
            listing(
                "Jobs",
                "The numbers of every job; its name opens its board. Restarts, and the best of progress and mAP, "
                "are those in the time range of the board.",
                table,
                shares | {"Images/s": "none", "Restarts": "none"},
                LINK,
            ),
        ],
    )


def disruptions() -> Row:
    """What ends attempts, and how long jobs wait."""
    ended = f"round({by('reason', 'sum', f'increase({of_namespace(Operator.RESTARTS)}[$__interval])')}) > 0"
    return Row(
        "Disruptions and waiting",
        [
            graph(
                "Restarts by reason",
                "Attempts that ended before their job was done, by the reason in status.attempts.",
                Query(ended, "{{reason}}"),
                bars=True,
                stack=True,
                interval="1m",
            ),
            bars(
                "Disruptions by job",
                "Attempts that the cluster ended, in the time range of the board.",
                Query(f"topk(10, {restarts(OF_JOB, DISRUPTED)} > 0)", NAME),
                unit="none",
                limits=((None, ORANGE),),
            ),
            graph(
                "Accelerators in use by job",
                "Accelerators that the pods of each job occupy.",
                Query(by(OF_JOB, "sum", of_namespace(Operator.ACCELERATORS)) + " > 0", NAME),
                stack=True,
            ),
            bars(
                "Wait for nodes",
                "Time from the start of an attempt until all its pods had nodes, time in a queue included.",
                *quantiles_of_range(Operator.QUEUE_WAIT, 0.5, 0.9),
            ),
            bars(
                "Restart time",
                "From the end of an attempt to the next step.",
                *quantiles_of_range(Operator.RESTART_SECONDS, 0.5, 0.9),
            ),
            bars(
                "Time to the first step",
                "From a job's first attempt to its first step.",
                *quantiles_of_range(Operator.TIME_TO_FIRST_STEP, 0.5, 0.9),
            ),
        ],
    )


BOARD = Board(
    uid=FLEET,
    title="Distillation fleet",
    description="Goodput, badput, disruptions, queues and accelerators of all DistillJobs, and the operator's health.",
    rows=[now(), goodput(), jobs(), disruptions(), health.row()],
    variables=[choice("namespace", "Namespace", f"label_values({Operator.JOBS}, namespace)", many=True)],
    links=[("Job", f"/d/{JOB}")],
)

if __name__ == "__main__":
    print(BOARD.to_json())
