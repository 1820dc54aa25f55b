"""A rank with a tiny training of its own, so that launching, signals and reports are tested with real processes.

Steps are all-reduces over gloo, or with FAKE_BACKEND=patient over what behaves as NCCL does. FAKE_PLAN is JSON {rank:
{"at": step, "do": …}}: what a rank does when it gets there; step 0 is before the ranks have met. FAKE_READABLE: the
checkpoint formats that it reads instead of those of today.
"""

import json
import logging
import os
import signal
import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from distill_api.errors import Permanent, Stopped
from distill_api.pod.run import RunConfig
from distill_api.reasons import Reason
from distill_api.status import Result
from distill_trainer.checkpoint.format import manifest
from distill_trainer.process.liveness.timeouts import timeouts
from distill_trainer.process.liveness.watchdog import RENDEZVOUS
from distill_trainer.process.rank.context import RankContext
from distill_trainer.training.parallel.collectives import process_group
from distill_trainer.training.parallel.environment import Environment
from tests.support.ranks import patient
from tests.support.ranks.patient import PatientEnvironment

log = logging.getLogger(__name__)

STEPS = int(os.environ.get("FAKE_STEPS", "40"))
SECONDS = float(os.environ.get("FAKE_STEP_SECONDS", "0.02"))
AFTER_ECC = """\
[rank{rank}]:[E1129 18:50:00.123 ProcessGroupNCCL.cpp:2042] [PG ID 0 PG GUID 0(default_pg) Rank {rank}] Process group \
watchdog thread terminated with exception: CUDA error: uncorrectable ECC error encountered
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
terminate called after throwing an instance of 'c10::DistBackendError'
""".format(rank=os.environ.get("RANK"))
if "FAKE_READABLE" in os.environ:
    manifest.READABLE = frozenset(map(int, os.environ["FAKE_READABLE"].split()))  # type: ignore[misc]


def misbehave(what: str) -> None:
    """Do what the plan says."""
    if what == "sigkill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "raise":
        raise ValueError("something nobody has foreseen")
    elif what == "permanent":
        raise Permanent(Reason.DATASET_INVALID, "data.yaml names no val images; add val: images/val")
    elif what == "exit":
        os._exit(5)
    elif what == "ecc":  # as c10d's watchdog does after an error of the device
        os.write(2, AFTER_ECC.encode())
        os.abort()
    elif what == "hang":
        time.sleep(3600)
    elif what == "freeze":  # every thread, the watchdog's too
        os.kill(os.getpid(), signal.SIGSTOP)


def together(collective: Callable[..., object], *arguments: object) -> None:
    """Run a collective, if this rank has others."""
    if dist.is_initialized():
        collective(*arguments)


def fake_train(run: RunConfig, context: RankContext) -> Result | None:
    """Count to STEPS, summing a counter over all ranks, with checkpoints every few steps."""
    mine = json.loads(os.environ.get("FAKE_PLAN", "{}")).get(str(context.env.rank), {})
    if context.env.rank == 0:
        log.info("computes with %d threads", torch.get_num_threads())
        devices = os.environ.get("CUDA_VISIBLE_DEVICES")
        log.info("of PyTorch: %s", sorted(name for name in os.environ if name.startswith(("TORCH_", "PYTORCH_"))))
        log.info("may use CUDA: %s, devices %s", not torch.cuda._is_in_bad_fork(), devices)
    if mine.get("at") == 0:
        misbehave(mine["do"])
    context.watchdog.beat(RENDEZVOUS)
    limits = timeouts(run.spec.recovery.stall_timeout_seconds)
    patiently = os.environ.get("FAKE_BACKEND") == patient.NAME
    if patiently:
        patient.use()
    environment = PatientEnvironment if patiently else Environment
    mine_in = environment(**vars(context.env), device=torch.device("cpu"))
    with process_group(mine_in, limits) as context.watchdog.waits_for:
        loaded = context.checkpointer.newest() if context.env.rank == 0 else None
        start = torch.tensor([loaded.step if loaded else 0])
        together(dist.broadcast, start, 0)
        resumed = int(start)
        context.status.update(resumed_from_step=resumed, state="training")
        context.status.progress(step=resumed, steps=STEPS)
        for step in range(resumed + 1, STEPS + 1):
            if mine.get("at") == step:
                misbehave(mine["do"])
            context.watchdog.beat("forward")
            time.sleep(SECONDS)
            flags = torch.tensor([float(context.stop.requested), 1.0])
            together(dist.all_reduce, flags)
            context.status.progress(step=step)
            context.status.update(steps_this_attempt=step - resumed)
            context.metrics.step(images=2, seconds=SECONDS, step=step, epoch=0)
            stopping = bool(flags[0] > 0)
            if stopping or step % 5 == 0:
                context.watchdog.beat("checkpoint")
                context.checkpointer.snapshot({"step": step, "weights": torch.full((1000,), float(step))}, step)
            if stopping:
                context.checkpointer.wait()
                together(dist.barrier)
                raise Stopped(step, context.checkpointer.committed_step)
        return Result(checkpoint=f"{run.job}/weights/best.pt", sha256="0" * 64) if context.env.rank == 0 else None
