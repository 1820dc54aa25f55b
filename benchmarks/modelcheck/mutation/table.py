"""Runs every mutant in a process of its own, and says which of them nothing noticed."""

import re
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import ROOT
from benchmarks.modelcheck.mutation.making import Mutant, mutants

MOST_SECONDS = 300
"""A mutant that takes longer hangs, which is noticed, too."""
BY = {0: "SURVIVED", 1: "test", 2: "search"}


def run(first: int, last: int, every: int, out: Path | None) -> int:
    """Run the mutants from number `first` to `last`; 1 if one survived. Each line of the list also goes to `out`."""
    found = list(enumerate(mutants()))
    chosen = [(number, mutant) for number, mutant in found if first <= number <= last and (number - first) % every == 0]
    began, survivors = time.monotonic(), []
    for number, mutant in chosen:
        by, name = outcome(number)
        line = f"{number:4d} {by:8} {mutant}{f'  [{name}]' if name else ''}"
        print(line, flush=True)
        if out is not None:
            with out.open("a") as listed:
                listed.write(line + "\n")
        if by == BY[0]:
            survivors.append(mutant)
    print(summary(len(found), len(chosen), survivors, time.monotonic() - began))
    return 1 if survivors else 0


def outcome(number: int) -> tuple[str, str]:
    """What noticed a mutant, and the name of the test."""
    command = [sys.executable, "-m", "benchmarks.modelcheck.mutation.one", str(number)]
    try:
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=MOST_SECONDS)
    except subprocess.TimeoutExpired:
        return "time", ""
    names = re.findall(r"^(?:FAILED|ERROR) \S*/(test_\w+\.py(?:::\w+)?)", ran.stdout, re.MULTILINE)
    return BY.get(ran.returncode, "crash"), names[0] if names else ""


def summary(all_of_them: int, ran: int, survivors: list[Mutant], seconds: float) -> str:
    """The last lines."""
    lines = [f"{ran} of {all_of_them} mutants, {ran - len(survivors)} noticed, {len(survivors)} not; {seconds:.0f} s"]
    return "\n".join([*lines, *(f"  survived: {mutant}" for mutant in survivors)])
