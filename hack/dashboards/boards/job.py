"""Job: one DistillJob from its progress down to its ranks."""

from dashboards.board import FLEET, JOB, Annotation, Board, Row, choice
from dashboards.boards import checkpoints, ranks
from dashboards.panels import KINDS, ORANGE, RED, YELLOW, Panel, bars, dial, graph, number, phase_mappings, phases
from dashboards.promql import Query, by, increase, newest, of_job, phase_number, rate
from distill_api.metrics import JOB_LABEL
from distill_api.metrics import OperatorMetric as Operator
from distill_api.metrics import TrainerMetric as Trainer

SHARE = ((None, RED), (0.5, ORANGE), (0.75, YELLOW), (0.9, "green"))
NEUTRAL = ((None, "blue"),)


def recent(metric: str) -> str:
    """The highest value of the last minutes: a rank that starts shows 0 until it has resumed."""
    return f"max(max_over_time({of_job(metric)}[5m]))"


def score(model: str, iou: str = "50-95") -> str:
    """mAP of the student or the teacher at the last validation."""
    return newest(Trainer.EVAL_MAP, {"model": model, "iou": iou})


def summary() -> Row:
    """The job in eight numbers."""
    pace = f"max({rate(of_job(Trainer.STEPS))})"
    left = f"({newest(Trainer.STEPS_PLANNED)} - {newest(Trainer.STEP)}) / ({pace} > 0)"
    return Row(
        "Summary",
        [
            number(
                "Phase",
                "status.phase of the job.",
                Query(f"max({phase_number(of_job)})", "phase"),
                unit="none",
                mappings=phase_mappings(),
                sparkline=False,
            ),
            dial(
                "Progress",
                "Steps done as a share of the steps planned.",
                Query(recent(Trainer.PROGRESS_RATIO), "progress"),
                limits=NEUTRAL,
            ),
            number("Time to the end", "Steps left at the present rate.", Query(left, "left"), unit="s", limits=NEUTRAL),
            dial(
                "Goodput",
                "Share of the job's time, from its first attempt on, that went into steps whose work was kept. "
                "Suspended time is left out.",
                Query(newest(Operator.GOODPUT_RATIO), "goodput"),
                limits=SHARE,
            ),
            number(
                "Student mAP",
                "mAP50-95 of the student at the last validation.",
                Query(score("student"), "student"),
                unit="percentunit",
            ),
            number(
                "Teacher's mAP reached",
                "The student's mAP50-95 as a share of the teacher's on the same images: 100 % closes the gap.",
                Query(f"{score('student')} / {score('teacher')}", "reached"),
                unit="percentunit",
                limits=((None, ORANGE), (0.8, YELLOW), (0.95, "green")),
                none="no teacher",
            ),
            number(
                "Images per second",
                "Images per second of all ranks, as rank 0 measures over its last steps.",
                Query(newest(Trainer.IMAGES_PER_SECOND), "images/s"),
                unit="none",
            ),
            number(
                "Restarts",
                "Attempts that ended before the job was done, in the time range of the board.",
                Query(f"round(sum({increase(of_job(Operator.RESTARTS))}))", "restarts"),
                unit="none",
                limits=((None, "green"), (1, YELLOW), (5, ORANGE)),
                sparkline=False,
            ),
        ],
    )


def progress() -> Row:
    """How far the job is, and what disruptions cost."""
    lost = f"sum({increase(of_job(Operator.LOST_STEPS))})"
    made = f"({newest(Operator.COMMITTED_STEP)} + ({lost} or vector(0)))"
    ended = f"round({by('reason', 'sum', f'increase({of_job(Operator.RESTARTS)}[$__interval])')}) > 0"
    return Row(
        "Progress",
        [
            graph(
                "Steps",
                "Where the training is, and how much of it is safe on the checkpoints volume. A drop is lost work.",
                Query(newest(Trainer.STEP) + " > 0", "done"),
                Query(newest(Operator.COMMITTED_STEP), "committed"),
                Query(newest(Trainer.STEPS_PLANNED) + " > 0", "planned"),
                width=12,
                dashed="planned",
            ),
            bars(
                "Where the time went",
                "The job's time by kind, in the time range of the board. All but productive is badput.",
                Query(by("kind", "sum", increase(of_job(Operator.JOB_TIME))), "{{kind}}"),
                width=6,
                names=KINDS,
            ),
            graph(
                "Restarts by reason",
                "Attempts that ended before the job was done, by the reason in status.attempts.",
                Query(ended, "{{reason}}"),
                width=6,
                bars=True,
                stack=True,
                interval="1m",
            ),
            phases(
                "Phases", "The phase of the job over time.", Query(phase_number(of_job), "phase"), width=16, height=4
            ),
            number(
                "Steps kept",
                "Committed steps as a share of those and the ones that had to be repeated.",
                Query(f"{newest(Operator.COMMITTED_STEP)} / {made}", "kept"),
                unit="percentunit",
                limits=SHARE,
                width=4,
            ),
            number(
                "Epochs",
                "Epochs finished.",
                Query(recent(Trainer.EPOCH), "epochs"),
                unit="none",
                limits=NEUTRAL,
                width=4,
            ),
        ],
    )


def learning() -> Row:
    """Whether the student learns, and from whom."""
    gap = f"{score('teacher')} - {score('student')}"
    return Row(
        "Learning",
        [
            graph(
                "Losses",
                "Training losses by component, weights included; dis is distillation.",
                Query(by("component", "avg", of_job(Trainer.LOSS)), "{{component}}"),
                unit="none",
                logarithmic=True,
            ),
            graph(
                "mAP",
                "mAP of student and teacher on the same images.",
                Query(by("model, iou", "max", of_job(Trainer.EVAL_MAP)), "{{model}} {{iou}}"),
                unit="percentunit",
                dashed="teacher 50-95",
            ),
            graph(
                "Gap to the teacher",
                "The teacher's mAP50-95 minus the student's: below 0 the student is better. Empty without a teacher.",
                Query(gap, "gap"),
                unit="percentunit",
                low=None,
            ),
            graph(
                "Learning rate",
                "Learning rate by parameter group.",
                Query(by("group", "max", of_job(Trainer.LEARNING_RATE)), "{{group}}"),
                unit="sci",
                width=6,
            ),
            graph(
                "Gradient norm",
                "Norm of all gradients before clipping.",
                Query(newest(Trainer.GRAD_NORM), "norm"),
                unit="none",
                width=6,
            ),
            graph(
                "Distillation at the neck",
                "With distillation.share: norm of distillation's gradient as a part of the task's, before it is "
                "scaled, and the cosine of both; below 0 they pull apart.",
                Query(by("level", "max", of_job(Trainer.NECK_GRADIENT_RATIO)), "ratio {{level}}"),
                Query(by("level", "max", of_job(Trainer.NECK_GRADIENT_COSINE)), "cosine {{level}}"),
                unit="none",
                width=6,
                low=None,
                none="no share",
            ),
            _scale(),
        ],
    )


def _scale() -> Panel:
    skipped = by("reason", "sum", f"increase({of_job(Trainer.SKIPPED_STEPS)}[$__rate_interval])")
    return graph(
        "Loss scale and skipped steps",
        "Scale of the loss under fp16 (0 where none is used), and steps without an update.",
        Query(newest(Trainer.AMP_SCALE), "scale"),
        Query(skipped, "skipped: {{reason}}"),
        unit="none",
        width=6,
    )


NEW_ATTEMPT = by("attempt", "max", of_job(Trainer.WORLD_SIZE))

BOARD = Board(
    uid=JOB,
    title="Distillation job",
    description="One DistillJob: progress, learning, throughput, ranks, checkpoints and accelerators.",
    rows=[summary(), progress(), learning(), *ranks.rows(), checkpoints.row(), ranks.dcgm()],
    variables=[
        choice("namespace", "Namespace", f"label_values({Operator.JOBS}, namespace)", many=False),
        choice(
            JOB_LABEL,
            "Job",
            f'label_values({Operator.JOB_PHASE}{{namespace=~"$namespace"}}, {JOB_LABEL})',
            many=False,
        ),
    ],
    links=[("Fleet", f"/d/{FLEET}")],
    annotations=[
        Annotation(
            "Attempts",
            f"{NEW_ATTEMPT} unless {by('attempt', 'max', of_job(Trainer.WORLD_SIZE) + ' offset 30s')}",
            "attempt {{attempt}} starts",
            "blue",
        ),
        Annotation(
            "Restarts",
            f"{by('reason', 'sum', f'increase({of_job(Operator.RESTARTS)}[30s])')} > 0",
            "{{reason}}",
            "red",
        ),
    ],
)

if __name__ == "__main__":
    print(BOARD.to_json())
