"""Searches all orders of events for one that breaks a promise of the operator, up to a bound that it prints.

    python -m benchmarks.modelcheck [--states 1000000] [--seconds 7200] [--faults 3] [--settle-every 200]
    python -m benchmarks.modelcheck --mutants [--first 0] [--last 99] [--every 1]

First all stories without a fault, then all with one, and so on: failures of containers, disruptions, lost nodes,
crashes of the operator between two writes, old pictures, refused and late writes, edits of the job, delays, wrong
clocks. Every state is visited once. Exits with 1 after a violation, and prints a story that leads to it.

With --mutants the rules of the operator are dropped one by one, and each time the unit tests or a short search must
fail. This takes hours; --every takes a sample.
"""

import argparse
import gc
import sys
from pathlib import Path

from benchmarks.modelcheck.mutation import table
from benchmarks.modelcheck.search import Search

GARBAGE = 200_000
"""New objects after which Python looks for cycles: the states have none."""
PROMISES = """\
  never two gangs that can commit; nothing is created while pods of another life are seen, or a Job that may start some
  a Job that is not its attempt's is deleted and never adopted, and a life whose end nobody saw is told
  the budgets are exact, an attempt that has ended is not changed, and every second is accounted for once
  nothing that is healthy is deleted, whatever the operator has read, and by force only where the node is away
  what is over stays over, and a job is never Failed for what may pass
  no pass raises; passes on their own result do nothing
  when all goes well from a state on, the job ends"""


def main() -> int:
    """Run one search. Returns 1 after a violation, or when a broken rule was not noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=1_000_000, help="stop after so many different states")
    parser.add_argument("--seconds", type=float, default=7200, help="stop after this time")
    parser.add_argument("--faults", type=int, default=3, help="most faults and delays in a story")
    parser.add_argument("--settle-every", type=int, default=200, help="after every so many states, check that one ends")
    parser.add_argument("--mutants", action="store_true", help="break the rules instead, one by one")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--last", type=int, default=sys.maxsize, help="number of the last mutant")
    parser.add_argument("--every", type=int, default=1, help="only every mutant after so many others")
    parser.add_argument("--out", type=Path, help="file that the list of mutants is appended to")
    args = parser.parse_args()
    if args.mutants:
        return table.run(args.first, args.last, args.every, args.out)
    gc.set_threshold(GARBAGE)
    search = Search(args.states, args.seconds, args.faults, args.settle_every)
    violation = search.run()
    print(search.progress())
    print(search.bound())
    print(f"checked in each state and step, and with {search.settled} states settled:\n{PROMISES}")
    if violation is not None:
        print(f"\nviolation after {len(violation.story)} steps: {violation.text()}")
    return 1 if violation is not None else 0


if __name__ == "__main__":
    sys.exit(main())
