"""A job's run without Kubernetes: which directories stand for its claims, how many ranks, which attempt."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distill_api.constants import JobFile
from distill_api.job import DistillJob
from distill_api.pod.run import Directories, RunConfig
from distill_api.spec.fields import Volume

RUN_IDENTITY = ("student", "teacher", "dataset", "distillation", "training")
"""Parts of a spec whose change makes another run; where it runs may change."""


class UserError(ValueError):
    """Something that the user has to change; the text says what."""


@dataclass(frozen=True)
class Machine:
    """What the user says about this machine."""

    runs: Path
    """Directory of everything that local runs make."""
    claims: Mapping[str, Path]
    """Directories that stand for claims by their name; others are runs/volumes/<claim name>."""
    processes: int | None
    """Ranks; default: as many as the job has on all its nodes."""


def run_config(job: DistillJob, machine: Machine, port: int, termination: Path) -> RunConfig:
    """The next attempt of `job` as one node on this machine, over `port`.

    Raises UserError when a directory is missing, the ranks do not divide the job's, or its checkpoints are another's.
    """
    directories = _directories(job, machine, termination)
    shards = job.spec.world_size
    processes = machine.processes or shards
    if shards % processes:
        raise UserError(
            f"nproc {processes} does not divide the job's {shards} shards (nodes times processes per node); "
            f"use one of {', '.join(str(n) for n in range(1, shards + 1) if shards % n == 0)}"
        )
    uid = local_uid(job)
    return RunConfig(
        job=job.metadata.name,
        uid=uid,
        attempt=next_attempt(Path(directories.checkpoints) / job.metadata.name, uid),
        nodes=1,
        processes_per_node=processes,
        rendezvous=f"127.0.0.1:{port}",
        spec=job.spec,
        directories=directories,
    )


def local_uid(job: DistillJob) -> str:
    """What stands for the UID that a cluster would give: the same as long as the run is the same."""
    # Without defaults, so that a field that is new in the contract makes no other run of an old one.
    spec = job.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    defining = {name: spec.get(name) for name in RUN_IDENTITY} | {"shards": job.spec.world_size}
    return "local-" + hashlib.sha256(json.dumps(defining, sort_keys=True).encode()).hexdigest()[:16]


def next_attempt(results: Path, uid: str) -> int:
    """One more than the newest attempt whose fence stands in `results`. Raises UserError when that was another run that
    has committed something; one that has ended before, by a mistake that is now corrected, leaves nothing to keep.
    """
    fence = results / JobFile.FENCE
    try:
        if not fence.exists():
            return 1
        content = json.loads(fence.read_bytes())
        found, attempt = str(content["uid"]), int(content["attempt"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{fence} is damaged; delete it if no run of this job is alive") from None
    except OSError as error:
        raise UserError(f"{fence} cannot be read: {error.strerror}") from None
    if found != uid and not any(fence.parent.glob("step-*")):
        return 1
    if found != uid:
        raise UserError(
            f"{results} holds another run: {', '.join(RUN_IDENTITY)} or the number of shards was different then; "
            "give the job another name, or delete that directory"
        )
    return attempt + 1


def _claim(job: DistillJob, name: str, volume: Volume) -> str:
    return volume.claim_name or f"{job.metadata.name}-{name}"


def _directories(job: DistillJob, machine: Machine, termination: Path) -> Directories:
    volumes = job.spec.volumes
    named = (("checkpoints", volumes.checkpoints), ("data", volumes.data), ("models", volumes.models))
    known = {_claim(job, name, volume) for name, volume in named if volume}
    for claim in machine.claims:
        if claim not in known:
            raise UserError(
                f"a directory is given for the claim {claim}, which the job does not use; "
                f"its claims are {', '.join(sorted(known))}"
            )

    def directory(name: str, volume: Volume, must_exist: bool) -> str:
        claim = _claim(job, name, volume)
        path = machine.claims.get(claim, machine.runs / "volumes" / claim) / (volume.sub_path or "")
        if must_exist and not path.is_dir():
            raise UserError(
                f"the directory {path} for the claim {claim} (volumes.{name}) does not exist; "
                f"make it, or say which directory stands for the claim: {claim}=DIR as volume"
            )
        return str(path.resolve())

    return Directories(
        checkpoints=directory("checkpoints", volumes.checkpoints, must_exist=False),
        data=directory("data", volumes.data, must_exist=True),
        models=directory("models", volumes.models, must_exist=True) if volumes.models else None,
        termination=str(termination),
    )
