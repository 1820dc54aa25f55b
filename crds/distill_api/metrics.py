"""Names of all metrics, as in Prometheus. Trainer, operator, dashboard and tests use these."""

from typing import Final

PREFIX: Final = "distill_"
JOB_LABEL: Final = "distilljob"
"""The label that names the DistillJob. `job` is Prometheus' own: the scrape configuration that a target belongs to."""
JOB_BOARD: Final = "distilljob"
"""uid of the Grafana board of one job; its variables are `namespace` and JOB_LABEL."""


class TrainerMetric:
    """Exposed by every rank. The scrape's relabelling adds the labels of the job (namespace, distilljob, attempt)."""

    LOSS: Final = "distill_loss"  # gauge {component}
    IMAGES: Final = "distill_images_total"
    STEPS: Final = "distill_steps_total"
    SKIPPED_STEPS: Final = "distill_skipped_steps_total"  # {reason}
    TIME: Final = "distill_time_seconds_total"  # {phase}
    STEP_DURATION: Final = "distill_step_duration_seconds"  # histogram
    IMAGES_PER_SECOND: Final = "distill_images_per_second"
    EPOCH: Final = "distill_epoch"
    STEP: Final = "distill_step"
    STEPS_PLANNED: Final = "distill_steps_planned"
    PROGRESS_RATIO: Final = "distill_progress_ratio"
    LEARNING_RATE: Final = "distill_learning_rate"  # {group}
    GRAD_NORM: Final = "distill_grad_norm"
    NECK_GRADIENT_RATIO: Final = "distill_neck_gradient_ratio"  # {level}
    NECK_GRADIENT_COSINE: Final = "distill_neck_gradient_cosine"  # {level}
    AMP_SCALE: Final = "distill_amp_scale"
    WORLD_SIZE: Final = "distill_world_size"
    EXECUTION: Final = "distill_execution"
    EVAL_MAP: Final = "distill_eval_map"  # {model, iou}
    CHECKPOINT_SAVES: Final = "distill_checkpoint_saves_total"  # {result}
    CHECKPOINT_FALLBACKS: Final = "distill_checkpoint_fallbacks_total"
    CHECKPOINT_STALL: Final = "distill_checkpoint_stall_seconds"  # histogram
    CHECKPOINT_PERSIST: Final = "distill_checkpoint_persist_seconds"  # histogram
    CHECKPOINT_INTERVAL: Final = "distill_checkpoint_interval_seconds"  # in effect
    LAST_CHECKPOINT_STEP: Final = "distill_last_checkpoint_step"
    LAST_CHECKPOINT_TIME: Final = "distill_last_checkpoint_timestamp_seconds"
    RESUMED_FROM_STEP: Final = "distill_resumed_from_step"
    GPU_MEMORY: Final = "distill_gpu_memory_reserved_bytes"
    BUILD_INFO: Final = "distill_build_info"


class OperatorMetric:
    """Exposed by the operator. Metrics of a job have the labels namespace and distilljob."""

    JOBS: Final = "distill_operator_jobs"  # gauge {namespace, phase}
    JOB_PHASE: Final = "distill_operator_job_phase"  # gauge {namespace, distilljob, phase}: 1 for the phase it is in
    ACCELERATORS: Final = "distill_operator_job_accelerators"  # gauge {namespace, distilljob, resource}
    RESTARTS: Final = "distill_operator_restarts_total"  # {namespace, distilljob, outcome, reason}
    LOST_STEPS: Final = "distill_operator_lost_steps_total"  # {namespace, distilljob}
    GOODPUT_RATIO: Final = "distill_operator_goodput_ratio"  # {namespace, distilljob}
    JOB_TIME: Final = "distill_operator_job_time_seconds_total"  # {namespace, distilljob, kind}
    QUEUE_WAIT: Final = "distill_operator_queue_wait_seconds"  # histogram
    RESTART_SECONDS: Final = "distill_operator_restart_seconds"  # histogram: end of an attempt to next step
    TIME_TO_FIRST_STEP: Final = "distill_operator_time_to_first_step_seconds"  # histogram
    PASS_SECONDS: Final = "distill_operator_pass_duration_seconds"  # histogram
    PASS_ERRORS: Final = "distill_operator_pass_errors_total"
    LAST_PASS: Final = "distill_operator_last_successful_pass_timestamp_seconds"
    POLLS: Final = "distill_operator_polls_total"  # {result}
    SILENT_JOBS: Final = "distill_operator_silent_jobs"
    COMMITTED_STEP: Final = "distill_operator_committed_step"  # {namespace, distilljob}
    BUILD_INFO: Final = "distill_operator_build_info"
    LEADS: Final = "distill_operator_leads"  # gauge
    CRD_MATCHES: Final = "distill_operator_crd_matches"  # gauge; absent if the operator may not read the CRD
