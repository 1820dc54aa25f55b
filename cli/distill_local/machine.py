"""Builds the RunConfig of a local run: directories for the job's claims, number of ranks, attempt."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distill_api.constants import JobFile
from distill_api.job import DistillJob
from distill_api.pod.run import Directories, RunConfig
from distill_api.spec.fields import Volume
from distill_api.spec.recipe import applied, chosen

RUN_IDENTITY = ("student", "teacher", "dataset", "recipe", "distillation", "training")
"""Fields of a spec that identify a run: if one changes, its checkpoints cannot be used. Other fields may change."""


class UserError(ValueError):
    """An error that the user must fix; the message says what to change."""


@dataclass(frozen=True)
class Machine:
    """The user's settings for local runs."""

    runs: Path
    """Directory for the results of local runs."""
    claims: Mapping[str, Path]
    """Directories to use for claims, by claim name; default: runs/volumes/<claim name>."""
    processes: int | None
    """Number of ranks; default: the job's ranks on all its nodes."""
    option: str = "--volume {}=DIR"
    """How the user gives the directory of a claim, whose name stands for {}."""


def run_config(job: DistillJob, machine: Machine, port: int, termination: Path) -> RunConfig:
    """The RunConfig of the job's next attempt, as one node on this machine with rendezvous at `port`.

    Raises UserError if a directory is missing, if the number of ranks does not divide the job's, or if the
    checkpoints belong to another run.
    """
    directories = _directories(job, machine, termination)
    shards = job.spec.world_size
    processes = machine.processes or shards
    if shards % processes:
        raise UserError(
            f"nproc {processes} does not divide the job's {shards} shards (nodes times processes per node); "
            f"use one of {', '.join(str(n) for n in range(1, shards + 1) if shards % n == 0)}"
        )
    uid, recipe = local_uid(job), chosen(job.spec)
    return RunConfig(
        job=job.metadata.name,
        uid=uid,
        attempt=next_attempt(Path(directories.checkpoints) / job.metadata.name, uid),
        nodes=1,
        processes_per_node=processes,
        rendezvous=f"127.0.0.1:{port}",
        spec=applied(job.spec, recipe),
        recipe=recipe,
        directories=directories,
    )


def local_uid(job: DistillJob) -> str:
    """A UID for the job that is the same as long as RUN_IDENTITY and the number of shards are the same."""
    # Exclude defaults, so that a new field in the API does not change the UID of existing runs.
    spec = job.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    defining = {name: spec.get(name) for name in RUN_IDENTITY if name in spec or name != "recipe"}
    defining["shards"] = job.spec.world_size
    return "local-" + hashlib.sha256(json.dumps(defining, sort_keys=True).encode()).hexdigest()[:16]


def next_attempt(results: Path, uid: str) -> int:
    """The number of the next attempt: one more than that of the fence in `results`.

    Starts at 1 again if the fence belongs to another run without checkpoints. Raises UserError if that run has any.
    """
    fence = results / JobFile.FENCE
    try:
        if not fence.exists():
            return 1
        content = json.loads(fence.read_bytes())
        found, attempt = str(content["uid"]), int(content["attempt"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{fence} is damaged; delete it if no run of this job is running") from None
    except OSError as error:
        raise UserError(f"cannot read {fence}: {error.strerror}") from None
    if found != uid and not any(fence.parent.glob("step-*")):
        return 1
    if found != uid:
        raise UserError(
            f"{results} has the checkpoints of another run, with different {', '.join(RUN_IDENTITY)} or number of "
            "shards; rename the job or delete that directory"
        )
    return attempt + 1


def _directories(job: DistillJob, machine: Machine, termination: Path) -> Directories:
    volumes = job.spec.volumes
    known = {volume.claim(job.metadata.name, name) for name, volume in volumes.by_name().items()}
    for claim in machine.claims:
        if claim not in known:
            raise UserError(
                f"a directory is given for claim {claim}, which the job does not use; "
                f"its claims are {', '.join(sorted(known))}"
            )

    def directory(name: str, volume: Volume, must_exist: bool) -> str:
        claim = volume.claim(job.metadata.name, name)
        path = machine.claims.get(claim, machine.runs / "volumes" / claim) / (volume.sub_path or "")
        if must_exist and not path.is_dir():
            what = f"claim {claim} (volumes.{name})"
            if not volume.is_claim:
                what = f"{claim} (volumes.{name}; a local run pulls no image and runs no init container)"
            raise UserError(
                f"directory {path} for {what} does not exist; create it, or choose another directory "
                f"({machine.option.format(claim)})"
            )
        return str(path.resolve())

    return Directories(
        checkpoints=directory("checkpoints", volumes.checkpoints, must_exist=False),
        data=directory("data", volumes.data, must_exist=True),
        models=directory("models", volumes.models, must_exist=True) if volumes.models else None,
        termination=str(termination),
    )
