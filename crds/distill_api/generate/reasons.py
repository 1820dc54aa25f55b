"""docs/reasons.md, generated from the table of reasons: `python -m distill_api.generate.reasons > docs/reasons.md`."""

import re
import sys

from distill_api.reason_facts import MAX_FAILED_STARTS, Blame, Group, Place, Wait
from distill_api.reasons import Reason

_INTRODUCTION = """\
# Reasons

Conditions, events, `status.attempts` and the trainer's termination messages give a reason as one word, and a message
with the details of the case. This page has for each word what happened and what you can do.

The budget is the count that an attempt with this end raises: `status.failures` or `status.preemptions`, limited by
`spec.recovery.maxFailures` and `spec.recovery.maxPreemptions`. What you or the operator asked for raises neither.
"""

_OF_GROUP = {
    Group.WAITING: "The job, or its open attempt, waits. No budget is charged.",
    Group.ATTEMPT: "News of an attempt, and ends that are charged to no budget.",
    Group.DISRUPTION: "The cluster ended the attempt. The next one starts at once while attempts commit new steps.",
    Group.FAILURE: "The attempt failed. If it committed new steps, the next one starts at once, else after a back-off.",
    Group.PERMANENT: "The job is Failed at once, because every further attempt would end the same way.",
    Group.LIMIT: "The job is Failed because it has reached a limit that its specification sets.",
}
_WAITS = {
    Wait.LIMITED: "for CLAIM_WAIT_SECONDS, and without limit once the job has committed",
    Wait.UNLIMITED: "without limit",
    Wait.CHANGE: "until the job's spec changes",
}
_BLAMES = {
    Blame.REPEATED: "avoided by the next attempts if this was not the first within spec.recovery.avoidNodeSeconds",
    Blame.ONCE: "avoided by the next attempts for spec.recovery.avoidNodeSeconds",
}
_FIELD = re.compile(r"\b(?:spec|status)\.\w[\w.]*\w|\b[A-Z]+(?:_[A-Z]+)+\b|\bkubectl describe pod\b")


def document() -> str:
    """The page as Markdown."""
    return "\n".join([_INTRODUCTION, *(_section(group) for group in Group)])


def _section(group: Group) -> str:
    of_group = [reason for reason in Reason if reason.facts.group == group]
    return "\n".join([f"## {group}\n\n{_OF_GROUP[group]}\n", *map(_entry, of_group)])


def _entry(reason: Reason) -> str:
    facts = reason.facts
    lines = [facts.cause, f"**What to do:** {facts.remedy}", f"**Budget:** {facts.budget or 'none'}"]
    if facts.wait != Wait.NONE:
        lines.append(f"**Waits:** {_WAITS[facts.wait]}")
    if facts.cannot_start:
        lines.append(f"**Limit:** after {MAX_FAILED_STARTS} attempts in a row that could not start the job is Failed")
    if facts.blames_node != Blame.NEVER:
        proven = ", if other pods of the attempt have started" if facts.cannot_start else ""
        lines.append(f"**The pod's node:** {_BLAMES[facts.blames_node]}{proven}")
    lines.append(f"**Seen in:** {', '.join(place for place in Place if place in facts.places)}")
    *others, last = (_FIELD.sub(r"`\g<0>`", line) for line in lines)
    return f"### {reason}\n\n" + "".join(f"{line}\\\n" for line in others) + f"{last}\n"


def main() -> None:
    """Write the page to standard output."""
    sys.stdout.write(document())


if __name__ == "__main__":
    main()
