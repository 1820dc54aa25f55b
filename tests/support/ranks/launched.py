"""Gangs of real launchers and ranks over gloo, with the tiny training of fakes/rank.py."""

import json
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill_api.constants import Env
from distill_api.pod.report import TerminationMessage
from distill_api.pod.run import Directories, RunConfig
from distill_api.spec.fields import DistillJobSpec
from distill_local.trainer_process import free_port
from tests.support.machine.python import command, environment

LAUNCH = "tests.support.ranks.fakes.launch"


@dataclass
class Node:
    """A launcher, as one pod would run it."""

    process: "subprocess.Popen[str]"
    termination: Path
    log: Path

    def end(self, timeout: float = 180) -> tuple[int, TerminationMessage]:
        """Wait for its end."""
        code = self.process.wait(timeout)
        return code, TerminationMessage.model_validate_json(self.termination.read_text())


@dataclass
class Gang:
    """Starts the nodes of an attempt on this machine."""

    root: Path
    backend: str = "gloo"
    """gloo, or patient (ranks/patient.py)."""
    nodes: list[Node] = field(default_factory=list)

    def start(
        self,
        *,
        nodes: int = 1,
        processes: int = 2,
        attempt: int = 1,
        plan: dict[str, Any] | None = None,
        recovery: dict[str, Any] | None = None,
        gpus: bool = False,
        steps: int = 40,
        only: range | None = None,
        host: str = "127.0.0.1",
        within: Callable[[int], list[str]] = lambda _: [],
        **environ: str,
    ) -> list[Node]:
        """Start every node (or `only` some) of one attempt. `host` is node 0's address; `within`, a command that runs a
        node's launcher; `environ`, further variables.
        """
        spec = spec_of(nodes, processes, recovery or {}, gpus)
        endpoint = f"{host}:{free_port()}"
        variables = {"FAKE_PLAN": json.dumps(plan or {}), "FAKE_STEPS": str(steps), "OMP_NUM_THREADS": "1", **environ}
        variables["FAKE_BACKEND"] = self.backend
        started = [
            self._start_node(rank, spec, endpoint, attempt, within(rank), variables) for rank in only or range(nodes)
        ]
        self.nodes += started
        return started

    def _start_node(
        self, rank: int, spec: DistillJobSpec, endpoint: str, attempt: int, within: list[str], variables: dict[str, str]
    ) -> Node:
        termination = self.root / f"termination-{attempt}-{rank}"
        run = RunConfig(
            job="fake",
            uid="uid-1",
            attempt=attempt,
            nodes=spec.nodes,
            rendezvous=endpoint,
            spec=spec,
            directories=Directories(checkpoints=str(self.root / "volume"), termination=str(termination)),
        )
        given = {Env.RUN: run.to_json(), Env.NODE_RANK: str(rank), **variables}
        log = self.root / f"log-{attempt}-{rank}"
        with open(log, "w") as stream:
            process = subprocess.Popen(
                [*within, *command(LAUNCH)], env=environment(**given), stdout=stream, stderr=stream, text=True
            )
        return Node(process, termination, log)

    def committed(self) -> list[int]:
        """Steps with a committed checkpoint."""
        folder = self.root / "volume/fake/checkpoints"
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(int(name.removeprefix("step-")) for name in names if re.fullmatch(r"step-\d+", name))

    def wait_for_commit(self, above: int = 0) -> None:
        """Return when a checkpoint newer than `above` is committed."""
        deadline = time.monotonic() + 60
        while not any(step > above for step in self.committed()):
            assert time.monotonic() < deadline, self.nodes[-1].log.read_text()
            time.sleep(0.05)

    def end(self) -> None:
        """Let nothing outlive the test."""
        for node in self.nodes:
            if node.process.poll() is None:
                node.process.terminate()
                try:
                    node.process.wait(20)
                except subprocess.TimeoutExpired:
                    node.process.kill()


def spec_of(nodes: int, processes: int, recovery: dict[str, Any], gpus: bool = False) -> DistillJobSpec:
    """A job on that many nodes; `recovery` replaces fields of spec.recovery. `gpus`: it asks for one for each process,
    which fakes/rank.py never uses.
    """
    return DistillJobSpec.model_validate(
        {
            "student": {"model": "yolo26n.yaml"},
            "dataset": {"config": "data.yaml"},
            "training": {"batch": 4},
            "nodes": nodes,
            "accelerators": {"perNode": processes} if gpus else {"perNode": 0, "processesPerNode": processes},
            "recovery": {"gracePeriodSeconds": 15, **recovery},
            "volumes": {"checkpoints": {"claimName": "c"}, "data": {"claimName": "d"}},
        }
    )
