"""Settings of the operator, read once from the environment."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distill_api.constants import OPERATOR_HEALTH_PORT, OPERATOR_METRICS_PORT, TRAINER_USER


class SettingsError(ValueError):
    """An environment variable is invalid; the text names it."""


@dataclass(frozen=True)
class Settings:
    """What an installation can configure. Durations are in seconds."""

    trainer_image: str
    """DEFAULT_TRAINER_IMAGE, required: image of the training pods unless spec.image is set."""
    trainer_user: int | None = TRAINER_USER
    """TRAINER_USER: user, group and fsGroup of the training pods; none: those that the platform chooses."""
    metrics_peers: tuple[dict[str, Any], ...] | None = None
    """METRICS_PEERS, a JSON list of peers as in a NetworkPolicy: who may reach the ranks' metrics ports, the operator
    among them. Default: everybody."""
    trainer_egress: tuple[dict[str, Any], ...] | None = None
    """TRAINER_EGRESS, a JSON list of egress rules as in a NetworkPolicy: what training pods may reach besides their
    gang and DNS. Default: everything."""
    namespaces: tuple[str, ...] = ()
    """WATCH_NAMESPACES, comma-separated. Default: the whole cluster."""
    log_level: str = "INFO"
    """LOG_LEVEL. INFO logs one line for each change of a job's phase."""
    log_format: str = "text"
    """LOG_FORMAT: text for people, or json with one object a line."""
    trainer_log_format: str = "text"
    """TRAINER_LOG_FORMAT: the same for training pods; a job may set its own (DISTILL_LOG_FORMAT in spec.template)."""
    lease_name: str = ""
    """LEASE_NAME of the Lease that decides which of several operators works. Default: none; there is only this one."""
    lease_namespace: str = ""
    """LEASE_NAMESPACE, required with LEASE_NAME."""
    identity: str = ""
    """POD_NAME, required with LEASE_NAME: this process among those that share the Lease. A container that is restarted
    keeps it, and leads again at once."""
    health_port: int = OPERATOR_HEALTH_PORT
    """OPERATOR_HEALTH_PORT: /healthz and /readyz."""
    metrics_port: int = OPERATOR_METRICS_PORT
    """OPERATOR_METRICS_PORT: /metrics."""
    claim_wait: float = 60
    """CLAIM_WAIT_SECONDS: how long a missing claim is waited for, because claim and job may be applied in any order."""
    poll: float = 3
    """PROGRESS_POLL_SECONDS between requests to a rank 0 for its status: short enough to see a short epoch."""
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
    placeholder_priority_class: str = ""
    """PLACEHOLDER_PRIORITY_CLASS: PriorityClass of the pods that ask for more nodes for an elastic job, lower than any
    job's and with preemptionPolicy Never. Empty: that of the job, so that a job may preempt others in order to grow."""
    workers: int = 8
    """WORKERS: how many passes run at a time, each of another job. A pass makes a few small requests."""

    forced_pod_deletion: bool = True
    """FORCED_POD_DELETION: always, or never. never: pods on nodes that do not respond are left to the cluster, and the
    operator needs no right to delete pods."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the variables named above. Raises SettingsError."""
        image = environ.get("DEFAULT_TRAINER_IMAGE", "")
        if not image:
            raise SettingsError("DEFAULT_TRAINER_IMAGE is not set; give the image of the training pods")
        lease = {name: environ.get(name, "") for name in ("LEASE_NAME", "LEASE_NAMESPACE", "POD_NAME")}
        missing = [name for name, value in lease.items() if not value]
        if lease["LEASE_NAME"] and missing:
            raise SettingsError(f"LEASE_NAME is set, but not {' and '.join(missing)}")
        namespaces = tuple(name.strip() for name in environ.get("WATCH_NAMESPACES", "").split(","))
        return cls(
            trainer_image=image,
            trainer_user=_user(environ),
            metrics_peers=_objects(environ, "METRICS_PEERS"),
            trainer_egress=_objects(environ, "TRAINER_EGRESS"),
            namespaces=tuple(name for name in namespaces if name),
            log_level=_choice(environ, "LOG_LEVEL", ("INFO", "DEBUG", "WARNING", "ERROR")),
            log_format=_choice(environ, "LOG_FORMAT", ("text", "json")).lower(),
            trainer_log_format=_choice(environ, "TRAINER_LOG_FORMAT", ("text", "json")).lower(),
            lease_name=lease["LEASE_NAME"],
            lease_namespace=lease["LEASE_NAMESPACE"],
            identity=lease["POD_NAME"],
            health_port=int(_number(environ, "OPERATOR_HEALTH_PORT", cls.health_port)),
            metrics_port=int(_number(environ, "OPERATOR_METRICS_PORT", cls.metrics_port)),
            claim_wait=_number(environ, "CLAIM_WAIT_SECONDS", cls.claim_wait),
            poll=_number(environ, "PROGRESS_POLL_SECONDS", cls.poll),
            progress_write=_number(environ, "PROGRESS_WRITE_SECONDS", cls.progress_write),
            resync=_number(environ, "RESYNC_SECONDS", cls.resync),
            backoff_base=_number(environ, "BACKOFF_BASE_SECONDS", cls.backoff_base),
            backoff_cap=_number(environ, "BACKOFF_CAP_SECONDS", cls.backoff_cap),
            placeholder_priority_class=environ.get("PLACEHOLDER_PRIORITY_CLASS", cls.placeholder_priority_class),
            workers=int(_number(environ, "WORKERS", cls.workers)),
            forced_pod_deletion=_choice(environ, "FORCED_POD_DELETION", ("always", "never")) == "always",
        )


def _choice(environ: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    """One of the choices, in any case; the first one is the default."""
    text = environ.get(name) or choices[0]
    found = next((choice for choice in choices if choice.lower() == text.lower()), None)
    if found is None:
        raise SettingsError(f"{name} is {text!r}; use {', '.join(choices[:-1])} or {choices[-1]}")
    return found


def _objects(environ: Mapping[str, str], name: str) -> tuple[dict[str, Any], ...] | None:
    """A JSON list of objects, none of them empty: in a NetworkPolicy an empty one would admit everything."""
    text = environ.get(name)
    if not text:
        return None
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, list) or not all(isinstance(value, dict) and value for value in values):
        raise SettingsError(
            f"{name} is {text!r}; give a JSON list of objects as in a NetworkPolicy, none of them empty"
        )
    return tuple(values)


def _user(environ: Mapping[str, str]) -> int | None:
    text = environ.get("TRAINER_USER") or str(TRAINER_USER)
    if text == "none":
        return None
    if not text.isdecimal() or int(text) == 0:
        raise SettingsError(f"TRAINER_USER is {text!r}; give the number of a user other than root, or none")
    return int(text)


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        raise SettingsError(f"{name} is {text!r}; give a number") from None
    if value <= 0:
        raise SettingsError(f"{name} is {text}; give a number above 0")
    return value
