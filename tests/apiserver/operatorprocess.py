"""The operator as a real process, with the rights that the chart gives it."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from distill_local.trainer_process import free_port
from tests.apiserver.api import wait_for


class OperatorProcess:
    """`python -m distill_operator`, started, killed and started again."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        self._log = log
        self._kubeconfig = kubeconfig
        self._process: subprocess.Popen[bytes] | None = None
        self.health_port, self.metrics_port = free_port(), free_port()

    def start(self, **settings: str) -> None:
        """Start it and wait until it is ready."""
        names = ("PATH", "HOME", "TMPDIR", "LANG", "PYTHONPATH")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        environment = {
            **kept,
            "KUBECONFIG": str(self._kubeconfig),
            "DEFAULT_TRAINER_IMAGE": "trainer:test",
            "OPERATOR_HEALTH_PORT": str(self.health_port),
            "OPERATOR_METRICS_PORT": str(self.metrics_port),
            "CLAIM_WAIT_SECONDS": "3",
            "PROGRESS_POLL_SECONDS": "0.3",
            "PROGRESS_WRITE_SECONDS": "1",
            "BACKOFF_BASE_SECONDS": "2",
            **settings,
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([sys.executable, "-m", "distill_operator"], env=environment, stderr=log)
        wait_for(self._ready, 30, self.tail)

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

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def tail(self) -> str:
        return self._log.read_text()[-1200:]

    def _end(self, number: signal.Signals) -> int:
        process = self._process
        if process is None or process.poll() is not None:
            return 0
        process.send_signal(number)
        return process.wait(timeout=20)

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.tail()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
