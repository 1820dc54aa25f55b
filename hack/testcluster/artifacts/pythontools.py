"""Python programs whose pins clash with the project's own: each in a virtual environment of its own, in the cache."""

import hashlib
import subprocess
import sys
from functools import partial
from pathlib import Path

from testcluster.artifacts.binaries import Part

_PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"


def environment(name: str, pins: Path) -> Part:
    """The environment with what ``pins`` lists, all that these need included; made anew when the pins change."""
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()[:12]
    return Part(name, f"{name}-{digest}-{_PYTHON}", (name,), partial(_install, pins))


def _install(pins: Path, directory: Path) -> None:
    uv = [sys.executable, "-m", "uv"]
    _run([*uv, "venv", "--quiet", "--relocatable", "--allow-existing", "--python", sys.executable, str(directory)])
    python = str(directory / "bin" / "python")
    _run([*uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, "-r", str(pins)])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr[-2000:]}")
