"""Settings of the operator, read once from the environment."""

from collections.abc import Mapping
from dataclasses import dataclass

from distill_api.constants import OPERATOR_HEALTH_PORT, OPERATOR_METRICS_PORT


class SettingsError(ValueError):
    """An environment variable is invalid; the text names it."""


@dataclass(frozen=True)
class Settings:
    """What an installation can configure. Durations are in seconds."""

    trainer_image: str
    """DEFAULT_TRAINER_IMAGE, required: image of the training pods unless spec.image is set."""
    namespaces: tuple[str, ...] = ()
    """WATCH_NAMESPACES, comma-separated. Default: the whole cluster."""
    log_level: str = "INFO"
    """LOG_LEVEL. INFO logs one line for each change of a job's phase."""
    health_port: int = OPERATOR_HEALTH_PORT
    """OPERATOR_HEALTH_PORT: /healthz and /readyz."""
    metrics_port: int = OPERATOR_METRICS_PORT
    """OPERATOR_METRICS_PORT: /metrics."""
    claim_wait: float = 60
    """CLAIM_WAIT_SECONDS: how long a missing claim is waited for, because claim and job may be applied in any order."""
    poll: float = 3
    """PROGRESS_POLL_SECONDS between requests to rank 0's /status: short enough to see a short epoch."""
    progress_write: float = 5
    """PROGRESS_WRITE_SECONDS, the minimum time between status writes in which only progress changes. It limits the
    load on etcd to 0.2 writes per second and job."""
    resync: float = 60
    """RESYNC_SECONDS after which a pass reads everything even without a watch event: the longest delay that a lost
    event can cause."""
    backoff_base: float = 10
    """BACKOFF_BASE_SECONDS, the back-off after the first failure without progress; it doubles with each further one,
    as in batch/v1."""
    backoff_cap: float = 300
    """BACKOFF_CAP_SECONDS, the longest back-off: a job continues at most five minutes after its cause is repaired."""
    workers: int = 8
    """WORKERS: how many passes run at a time, each of another job. A pass makes a few small requests."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the variables named above. Raises SettingsError."""
        image = environ.get("DEFAULT_TRAINER_IMAGE", "")
        if not image:
            raise SettingsError("DEFAULT_TRAINER_IMAGE is not set; give the image of the training pods")
        level = environ.get("LOG_LEVEL", cls.log_level).upper()
        if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise SettingsError(f"LOG_LEVEL is {level}; use DEBUG, INFO, WARNING or ERROR")
        namespaces = tuple(name.strip() for name in environ.get("WATCH_NAMESPACES", "").split(","))
        return cls(
            trainer_image=image,
            namespaces=tuple(name for name in namespaces if name),
            log_level=level,
            health_port=int(_number(environ, "OPERATOR_HEALTH_PORT", cls.health_port)),
            metrics_port=int(_number(environ, "OPERATOR_METRICS_PORT", cls.metrics_port)),
            claim_wait=_number(environ, "CLAIM_WAIT_SECONDS", cls.claim_wait),
            poll=_number(environ, "PROGRESS_POLL_SECONDS", cls.poll),
            progress_write=_number(environ, "PROGRESS_WRITE_SECONDS", cls.progress_write),
            resync=_number(environ, "RESYNC_SECONDS", cls.resync),
            backoff_base=_number(environ, "BACKOFF_BASE_SECONDS", cls.backoff_base),
            backoff_cap=_number(environ, "BACKOFF_CAP_SECONDS", cls.backoff_cap),
            workers=int(_number(environ, "WORKERS", cls.workers)),
        )


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        raise SettingsError(f"{name} is {text!r}; give a number") from None
    if value <= 0:
        raise SettingsError(f"{name} is {text}; give a number above 0")
    return value
