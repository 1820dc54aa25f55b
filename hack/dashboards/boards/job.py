"""Job: one DistillJob from its progress down to its ranks."""

from dashboards.board import FLEET, JOB, Annotation, Board, Row, choice
from dashboards.boards import ranks
from dashboards.panels import KINDS, ORANGE, RED, YELLOW, bars, dial, graph, number, phase_mappings, phases
from dashboards.promql import Query, by, increase, of_job, phase_number, quantile, rate
from distill_api.metrics import JOB_LABEL
from distill_api.metrics import OperatorMetric as Operator
from distill_api.metrics import TrainerMetric as Trainer

SHARE = ((None, RED), (0.5, ORANGE), (0.75, YELLOW), (0.9, "green"))
NEUTRAL = ((None, "blue"),)


def value(metric: str, matchers: dict[str, str] | None = None) -> str:
    """A number of the whole job: what rank 0 or the operator says."""
    return f"max({of_job(metric, matchers)})"


def score(model: str, iou: str = "50-95") -> str:
    """mAP of the student or the teacher at the last validation."""
    return value(Trainer.EVAL_MAP, {"model": model, "iou": iou})


def summary() -> Row:
    """The job in eight numbers."""
    pace = f"max({rate(of_job(Trainer.STEPS))})"
    left = f"({value(Trainer.STEPS_PLANNED)} - {value(Trainer.STEP)}) / ({pace} > 0)"
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
                Query(value(Trainer.PROGRESS_RATIO), "progress"),
                limits=NEUTRAL,
            ),
            number("Time to the end", "Steps left at the present rate.", Query(left, "left"), unit="s", limits=NEUTRAL),
            dial(
                "Goodput",
                "Share of the job's time, from its first attempt on, that went into steps whose work was kept. "
                "Suspended time is left out.",
                Query(value(Operator.GOODPUT_RATIO), "goodput"),
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
                Query(value(Trainer.IMAGES_PER_SECOND), "images/s"),
                unit="none",
            ),
            number(
                "Restarts",
                "Attempts that ended before the job was done, in the time range of the board.",
                Query(f"sum({increase(of_job(Operator.RESTARTS))})", "restarts"),
                unit="none",
                limits=((None, "green"), (1, YELLOW), (5, ORANGE)),
                sparkline=False,
            ),
        ],
    )


def progress() -> Row:
    """How far the job is, and what disruptions cost."""
    lost = f"sum({increase(of_job(Operator.LOST_STEPS))})"
    made = f"({value(Operator.COMMITTED_STEP)} + ({lost} or vector(0)))"
    ended = f"round({by('reason', 'sum', f'increase({of_job(Operator.RESTARTS)}[$__interval])')}) > 0"
    return Row(
        "Progress",
        [
            graph(
                "Steps",
                "Where the training is, and how much of it is safe on the checkpoints volume. A drop is lost work.",
                Query(value(Trainer.STEP), "done"),
                Query(value(Operator.COMMITTED_STEP), "committed"),
                Query(value(Trainer.STEPS_PLANNED), "planned"),
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
                Query(f"{value(Operator.COMMITTED_STEP)} / {made}", "kept"),
                unit="percentunit",
                limits=SHARE,
                width=4,
            ),
            number(
                "Epochs",
                "Epochs finished.",
                Query(value(Trainer.EPOCH), "epochs"),
                unit="none",
                limits=NEUTRAL,
                width=4,
            ),
        ],
    )


def learning() -> Row:
    """Whether the student learns, and from whom."""
    skipped = by("reason", "sum", f"increase({of_job(Trainer.SKIPPED_STEPS)}[$__rate_interval])")
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
                "The teacher's mAP50-95 minus the student's. Empty for a job without a teacher.",
                Query(gap, "gap"),
                unit="percentunit",
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
                Query(value(Trainer.GRAD_NORM), "norm"),
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
            ),
            graph(
                "Loss scale and skipped steps",
                "Scale of the loss under fp16 (0 where none is used), and steps without an update.",
                Query(value(Trainer.AMP_SCALE), "scale"),
                Query(skipped, "skipped: {{reason}}"),
                unit="none",
                width=6,
            ),
        ],
    )


def checkpoints() -> Row:
    """How much work is at risk, and what it costs to save it."""
    age = f"time() - ({value(Trainer.LAST_CHECKPOINT_TIME)} > 0)"
    commits = by("result", "sum", f"increase({of_job(Trainer.CHECKPOINT_SAVES)}[$__rate_interval])")
    stall, persist = (of_job(f"{metric}_bucket") for metric in (Trainer.CHECKPOINT_STALL, Trainer.CHECKPOINT_PERSIST))
    return Row(
        "Checkpoints",
        [
            graph(
                "Age of the last checkpoint",
                "Work that a hard kill would cost now, and the limit of the alert: three times the interval.",
                Query(age, "age"),
                Query(f"3 * {value(Trainer.CHECKPOINT_INTERVAL)}", "limit"),
                unit="s",
                dashed="limit",
            ),
            graph(
                "Stall by checkpoints",
                "Time that training stands still for a snapshot.",
                Query(quantile(0.5, stall), "p50"),
                Query(quantile(0.99, stall), "p99"),
                unit="s",
                interval="1m",
            ),
            graph(
                "Time to commit",
                "From snapshot to a durable checkpoint: write, fsync, digest, rename, in the background.",
                Query(quantile(0.5, persist), "p50"),
                Query(quantile(0.99, persist), "p99"),
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
                Query(value(Trainer.LAST_CHECKPOINT_STEP), "committed"),
                Query(by("attempt", "max", of_job(Trainer.RESUMED_FROM_STEP)), "attempt {{attempt}} from"),
            ),
            number(
                "Fallbacks",
                "Damaged checkpoints that were skipped when the attempt resumed: storage lost or changed data.",
                Query(f"sum({increase(of_job(Trainer.CHECKPOINT_FALLBACKS))})", "fallbacks"),
                unit="none",
                limits=((None, "green"), (1, RED)),
                width=8,
                height=8,
                sparkline=False,
            ),
        ],
    )


NEW_ATTEMPT = by("attempt", "max", of_job(Trainer.WORLD_SIZE))

BOARD = Board(
    uid=JOB,
    title="Distillation job",
    description="One DistillJob: progress, learning, throughput, ranks, checkpoints and accelerators.",
    rows=[summary(), progress(), learning(), *ranks.rows(), checkpoints(), ranks.dcgm()],
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
