"""The operator as a real process, with the rights that the chart gives it."""

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import yaml

from distill_local.trainer_process import free_port
from testcluster import ControlPlane
from tests.support.apiserver.api import Api, wait_for
from tests.support.machine.python import ROOT

USER = "distill-operator-under-test"


def chart_user(plane: ControlPlane, api: Api) -> Path:
    """The kubeconfig of a new user who has exactly the rights of the chart's ClusterRole."""
    chart = plane.helm("template", "test", str(ROOT / "charts" / "distill-operator"))
    objects = [obj for obj in yaml.safe_load_all(chart) if obj and obj["kind"] == "ClusterRole"]
    (role,) = [obj for obj in objects if obj["metadata"]["name"] == "test-distill-operator"]
    api.create(role)
    group = "rbac.authorization.k8s.io"
    api.create(
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": USER},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role["metadata"]["name"]},
            "subjects": [{"kind": "User", "name": USER, "apiGroup": group}],
        }
    )
    return plane.user_kubeconfig("operator", USER)


class OperatorProcess:
    """`python -m distill_operator`, started, killed and started again."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        self.log = log
        self.kubeconfig = kubeconfig
        self._process: subprocess.Popen[bytes] | None = None
        self.choose_ports()

    def choose_ports(self) -> None:
        """Free ones for the next start: somebody else may have taken those of the last."""
        self.health_port, self.metrics_port = free_port(), free_port()

    def start(self, seconds: float = 30, **settings: str) -> None:
        """Start it and wait until it is ready. AssertionError if it ends before, or after so many seconds."""
        names = ("PATH", "HOME", "TMPDIR", "LANG", "PYTHONPATH")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        environment = {
            **kept,
            "KUBECONFIG": str(self.kubeconfig),
            "DEFAULT_TRAINER_IMAGE": "trainer:test",
            "OPERATOR_HEALTH_PORT": str(self.health_port),
            "OPERATOR_METRICS_PORT": str(self.metrics_port),
            "CLAIM_WAIT_SECONDS": "3",
            "PROGRESS_POLL_SECONDS": "0.3",
            "PROGRESS_WRITE_SECONDS": "1",
            "BACKOFF_BASE_SECONDS": "2",
            **settings,
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([sys.executable, "-m", "distill_operator"], env=environment, stderr=log)
        wait_for(self._started, seconds, self.tail)

    def kill(self) -> None:
        """SIGKILL: it can finish nothing."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, as a rolling update sends it; returns the exit status."""
        return self._end(signal.SIGTERM)

    def restart(self) -> None:
        self.kill()
        self.start()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def ready(self) -> bool:
        """Whether it runs, and says that it watches."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}/readyz", timeout=2) as answer:
                return self.running and bool(answer.status == 200)
        except OSError:
            return False

    @property
    def exit_status(self) -> int | None:
        """Of the process that was started last; None while it runs."""
        return self._process.poll() if self._process is not None else None

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def tail(self) -> str:
        return self.log.read_text()[-1200:]

    def _end(self, number: signal.Signals) -> int:
        process = self._process
        if process is None or process.poll() is not None:
            return 0
        process.send_signal(number)
        return process.wait(timeout=20)

    def _started(self) -> bool:
        assert self.running, self.tail()
        return self.ready
