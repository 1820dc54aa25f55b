"""Runs the tests, then a short search, with one mutant in place of its module.

    python -m benchmarks.modelcheck.mutation.one NUMBER

Exits with 0 if nothing noticed, with 1 if a test did, with 2 if the search did.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import CodeType, ModuleType
from typing import Any

import pytest

from benchmarks import ROOT
from benchmarks.modelcheck.mutation.making import Mutant, mutants

TESTS = (
    "policies/test_policies.py", "policies/test_classify.py", "policies/test_starting.py", "policies/test_queue.py",
    "policies/test_stall.py", "policies/test_template.py", "policies/test_active_deadline.py",
    "policies/test_clock_skew.py", "policies/test_preempted_early.py", "plan/test_ends.py", "plan/test_waits.py",
    "plan/test_one_gang.py", "policies/test_node_lost.py", "policies/test_elasticity.py", "plan/test_skew.py",
    "plan/test_lives.py",
)  # fmt: skip
"""Below tests/operator, fast ones first."""
STATES = 1500
FAULTS = 1
SETTLE_EVERY = 20
BY_TEST, BY_SEARCH = 1, 2


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a module from the mutant's source."""

    def __init__(self, mutant: Mutant) -> None:
        super().__init__(mutant.module, str(mutant.path))
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType | None:
        """The mutant's code."""
        del fullname
        return compile(self._mutant.source, str(self._mutant.path), "exec")


class Finder(importlib.abc.MetaPathFinder):
    """Finds the mutant before the module that it replaces."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        """The mutant, for its module's name."""
        del path, target
        if fullname != self._mutant.module:
            return None
        return importlib.util.spec_from_file_location(fullname, self._mutant.path, loader=Loader(self._mutant))


def main(number: int) -> int:
    """Run what may notice. The exit status says what did."""
    sys.meta_path.insert(0, Finder(mutants()[number]))
    options = ["-q", "-x", "--no-header", "-p", "no:cacheprovider", "-p", "no:randomly", "--durations=0"]
    paths = [str(ROOT / "tests" / "operator" / name) for name in TESTS]
    if pytest.main([*options, *paths]) != 0:
        return BY_TEST
    from benchmarks.modelcheck.search import Search  # only now: it imports the operator

    search = Search(STATES, float("inf"), FAULTS, SETTLE_EVERY, say=str)
    violation = search.run()
    if violation is None:
        return 0
    print(violation.text())
    return BY_SEARCH


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
