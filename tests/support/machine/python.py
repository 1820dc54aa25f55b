"""The checkout, and how tests start programs that lie in it."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def command(module: str, *arguments: object) -> list[str]:
    """What runs a module with this Python."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def environment(**variables: str) -> dict[str, str]:
    """This process's environment and further variables, for a program that imports `tests`."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), **variables}
