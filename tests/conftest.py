"""Tiers: a test's folder says what it needs. Where that is missing it is skipped with the reason and the remedy;
under CI=true a missing tier is a failure."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine.leaving_out import leave_out

TESTS = Path(__file__).parent
ORDER = ("contract", "operator", "local", "chart", "project", "trainer", "apiserver", "e2e")
LONG = (
    "apiserver",
    "trainer/process/liveness",
    "local",
    "trainer/runs",
    "trainer/training",
    "trainer/outputs",
    "trainer/models",
    "trainer/checkpoint",
)
"""Files of these take minutes: with several processes they come first, so that no process waits for another's last."""
PATIENT = (
    "trainer/models",
    "trainer/training/device",
    "trainer/training/distillation",
    "trainer/training/evaluation",
    "trainer/training/parity",
    "trainer/training/test_gang.py",
    "trainer/training/test_step.py",
)
"""Tests of these only compute, and no clock fails them: scripts/test.sh runs them at the lowest priority beside others,
which mostly wait."""


def _apiserver() -> str | None:
    from testcluster.artifacts import binaries

    if shutil.which("go") or binaries.path("kube-apiserver").exists():
        return None
    return "no Go to build Kubernetes with; install Go, then run `make binaries`"


def _e2e() -> str | None:
    if os.environ.get("DISTILL_KUBECONFIG"):
        return None
    if sys.platform != "linux" or os.geteuid() != 0:
        return "the one-machine Kubernetes needs Linux and root; run as root, or set DISTILL_KUBECONFIG"
    return _apiserver()


NEEDS: dict[str, Callable[[], str | None]] = {"apiserver": _apiserver, "e2e": _e2e}


def pytest_configure(config: pytest.Config) -> None:
    """What Ultralytics reads when a test module imports it: this process and its children use settings and fonts in a
    folder of their own, and ask no server for anything."""
    folder = tempfile.TemporaryDirectory(prefix="ultralytics-", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    os.environ |= {"YOLO_CONFIG_DIR": folder.name, "MPLCONFIGDIR": folder.name, "YOLO_OFFLINE": "true"}
    matplotlib = find_spec("matplotlib")
    if matplotlib is None or matplotlib.origin is None:
        return
    settings = Path(folder.name, "Ultralytics")
    settings.mkdir()
    for name in ("Arial.ttf", "Arial.Unicode.ttf"):  # what it would download, also where it draws nothing
        (settings / name).symlink_to(Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf")


def tier(item: pytest.Item) -> str:
    return item.path.relative_to(TESTS).parts[0]


def turn(item: pytest.Item) -> int:
    """Where its folder is in LONG; behind all if it is not there."""
    path = item.path.relative_to(TESTS)
    return next((number for number, folder in enumerate(LONG) if path.is_relative_to(folder)), len(LONG))


def alone(item: pytest.Item) -> bool:
    """Whether little else may run beside the test, because it waits for timeouts, or nothing: it uses the cluster."""
    return tier(item) == "e2e" or item.get_closest_marker("alone") is not None


def patient(item: pytest.Item) -> bool:
    """Whether the test may be slowed down by others, because it waits for nothing but its own arithmetic."""
    path = item.path.relative_to(TESTS)
    return not alone(item) and any(path.is_relative_to(folder) for folder in PATIENT)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file, and with it its fixtures, is one process's. So is the whole tier on the API server: it hardly computes,
    and one control plane is enough for it."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            folder = "tests/apiserver/"
            return folder if nodeid.startswith(folder) else super()._split_scope(nodeid)

    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: (ORDER.index(tier(item)) if tier(item) in ORDER else -1, alone(item)))
    if hasattr(config, "workerinput"):
        items.sort(key=turn)
    for item in items:
        if alone(item):
            item.add_marker(pytest.mark.alone)
        elif patient(item):
            item.add_marker(pytest.mark.patient)


_missing: dict[str, str | None] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    name = tier(item)
    if name not in NEEDS:
        return
    if name not in _missing:
        _missing[name] = NEEDS[name]()
    reason = _missing[name]
    if reason is None:
        return
    leave_out(f"tier {name} cannot run: {reason}")
