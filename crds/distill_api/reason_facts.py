"""What a reason means besides its word: where it appears, what it is charged to, what happens next. reasons.py has
the table; the functions here make its rows, one for each kind of reason.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal, Self

from distill_api.constants import OpenEnum, Outcome

MAX_FAILED_STARTS: Final = 8
"""Attempts in a row whose pods could not start, after which the job is Failed."""


class Group(StrEnum):
    """Kinds of reasons: the sections of docs/reasons.md."""

    WAITING = "Why a job waits"
    ATTEMPT = "What an attempt does"
    DISRUPTION = "Disruptions"
    FAILURE = "Failures that are retried"
    PERMANENT = "Permanent failures"
    LIMIT = "Limits"


class Place(StrEnum):
    """Where a reason appears."""

    VALIDATED = "condition Validated"
    RUNNING = "condition Running"
    SUSPENDED = "condition Suspended"
    DEGRADED = "condition Degraded"
    COMPLETE = "condition Complete"
    FAILED = "condition Failed"
    ATTEMPT = "status.attempts"
    EVENT = "events"
    TERMINATION = "termination messages"


class Wait(StrEnum):
    """How long a job waits while this reason keeps it from creating its pods."""

    NONE = "none"
    LIMITED = "limited"
    """For CLAIM_WAIT_SECONDS, then the job is Failed; without limit once it has committed."""
    UNLIMITED = "unlimited"
    CHANGE = "change"
    """Until the job's spec changes."""


class Blame(StrEnum):
    """Whether an attempt's end speaks against the node on which it began (spec.recovery.avoidNodeSeconds)."""

    NEVER = "never"
    """The program, the user or the rest of the cluster is as likely the cause."""
    REPEATED = "repeated"
    """Only together with another end of the job that speaks against the same node."""
    ONCE = "once"


@dataclass(frozen=True, kw_only=True)
class ReasonFacts:
    """One row of the table."""

    word: str
    """The reason as programs read it."""
    cause: str
    """What happened, for people."""
    remedy: str
    """What the user can do."""
    group: Group
    places: frozenset[Place]
    outcome: Outcome | None = None
    """Outcome of an attempt that ends for this reason; None where no attempt does."""
    permanent: bool = False
    """The job is Failed at once: the same attempt again would end the same way."""
    echo: bool = False
    """Follows from the end of another rank or node, which is looked for first."""
    lost_node_explains: bool = False
    """When the attempt turns out to have lost a node, it ended for that instead."""
    ended_by_operator: bool = False
    """The pods run on until the operator deletes the attempt's Job."""
    cannot_start: bool = False
    """The pods could not start. Such attempts in a row are limited to MAX_FAILED_STARTS."""
    ignored: bool = False
    """A failure that is not charged: but for the budget it counts as one, so that it backs off and has a limit."""
    keeps_phase: bool = False
    """The job's phase does not become Recovering while the pods terminate."""
    blames_node: Blame = Blame.NEVER
    """Whether the next attempts avoid the node on which it happened."""
    wait: Wait = Wait.NONE
    warning: bool = False
    """Its events are of type Warning, else Normal."""

    def __post_init__(self) -> None:
        if not self.cause or not self.remedy:
            raise ValueError(f"reason {self.word} needs a cause and a remedy")
        if (self.outcome is None) == (Place.ATTEMPT in self.places):
            raise ValueError(f"reason {self.word} needs an outcome exactly if attempts end for it")

    @property
    def budget(self) -> Literal["failures", "preemptions"] | None:
        """The count in status that an attempt with this end raises."""
        if self.outcome == Outcome.FAILED:
            return "failures"
        return "preemptions" if self.outcome == Outcome.DISRUPTED else None

    @property
    def failed(self) -> bool:
        """Whether an attempt with this end failed by itself, charged or not."""
        return self.outcome == Outcome.FAILED or self.ignored

    @property
    def fails_again(self) -> bool:
        """Whether a further attempt of the same spec would end the same way."""
        return self.permanent or self.wait == Wait.CHANGE

    @property
    def needs_change(self) -> bool:
        """Whether somebody must change something first: the spec, or what is missing on the cluster."""
        return self.fails_again or self.wait == Wait.LIMITED

    @property
    def event_type(self) -> Literal["Normal", "Warning"]:
        """Type of its Kubernetes events."""
        return "Warning" if self.warning else "Normal"


_END: Final = frozenset({Place.ATTEMPT, Place.RUNNING, Place.EVENT})
"""Where every end of an attempt appears."""


def waiting(
    word: str,
    cause: str,
    remedy: str,
    *also: Place,
    wait: Wait = Wait.NONE,
    warning: bool = False,
) -> ReasonFacts:
    """The job, or its open attempt, waits."""
    places = frozenset({Place.RUNNING, *also})
    return ReasonFacts(
        word=word, cause=cause, remedy=remedy, group=Group.WAITING, places=places, wait=wait, warning=warning
    )


def news(word: str, cause: str, remedy: str, *places: Place, warning: bool = False) -> ReasonFacts:
    """Something that an attempt does, or a condition of a job that is well."""
    return ReasonFacts(
        word=word, cause=cause, remedy=remedy, group=Group.ATTEMPT, places=frozenset(places), warning=warning
    )


def completion(word: str, cause: str, remedy: str) -> ReasonFacts:
    """The end of an attempt that finished the training."""
    places = _END | {Place.COMPLETE, Place.TERMINATION}
    return ReasonFacts(
        word=word, cause=cause, remedy=remedy, group=Group.ATTEMPT, places=places,
        outcome=Outcome.SUCCEEDED, keeps_phase=True,
    )  # fmt: skip


def withdrawal(
    word: str,
    cause: str,
    remedy: str,
    *also: Place,
    keeps_phase: bool = False,
    warning: bool = False,
) -> ReasonFacts:
    """The operator ends an attempt at no charge."""
    return ReasonFacts(
        word=word, cause=cause, remedy=remedy, group=Group.ATTEMPT, places=_END | frozenset(also),
        outcome=Outcome.WITHDRAWN, ended_by_operator=True, keeps_phase=keeps_phase, warning=warning,
    )  # fmt: skip


def taken_back(word: str, cause: str, remedy: str) -> ReasonFacts:
    """A queue ends an attempt, at no charge."""
    return ReasonFacts(
        word=word, cause=cause, remedy=remedy, group=Group.ATTEMPT, places=_END,
        outcome=Outcome.WITHDRAWN, warning=True,
    )  # fmt: skip


def disruption(
    word: str, cause: str, remedy: str, *also: Place, echo: bool = False, blames_node: Blame = Blame.NEVER
) -> ReasonFacts:
    """The cluster ends an attempt."""
    return ReasonFacts(
        word=word, cause=cause, remedy=remedy, group=Group.DISRUPTION, places=_END | frozenset(also),
        outcome=Outcome.DISRUPTED, echo=echo, blames_node=blames_node, warning=True,
    )  # fmt: skip


def failure(
    word: str,
    cause: str,
    remedy: str,
    *also: Place,
    echo: bool = False,
    lost_node_explains: bool = False,
    ended_by_operator: bool = False,
    blames_node: Blame = Blame.NEVER,
) -> ReasonFacts:
    """An attempt fails in a way that another one may not."""
    return ReasonFacts(
        word=word, cause=cause, remedy=remedy, group=Group.FAILURE, places=_END | frozenset(also),
        outcome=Outcome.FAILED, echo=echo, lost_node_explains=lost_node_explains,
        ended_by_operator=ended_by_operator, blames_node=blames_node, warning=True,
    )  # fmt: skip


def unstartable(word: str, cause: str, remedy: str, *, blames_node: Blame = Blame.NEVER) -> ReasonFacts:
    """The pods of an attempt cannot start: it is withdrawn, and too many such attempts in a row make the job Failed."""
    return ReasonFacts(
        word=word, cause=cause, remedy=remedy, group=Group.FAILURE, places=_END | {Place.FAILED},
        outcome=Outcome.WITHDRAWN, ended_by_operator=True, cannot_start=True, blames_node=blames_node, warning=True,
    )  # fmt: skip


def ignored_failure(word: str, cause: str, remedy: str) -> ReasonFacts:
    """An attempt fails in a way that the job's spec says not to charge."""
    return ReasonFacts(
        word=word, cause=cause, remedy=remedy, group=Group.FAILURE, places=_END,
        outcome=Outcome.WITHDRAWN, ignored=True, warning=True,
    )  # fmt: skip


def permanent(word: str, cause: str, remedy: str, *also: Place, ended_by_operator: bool = False) -> ReasonFacts:
    """An attempt fails in a way that every other one would, too."""
    places = _END | {Place.VALIDATED, Place.FAILED} | set(also)
    return ReasonFacts(
        word=word, cause=cause, remedy=remedy, group=Group.PERMANENT, places=places,
        outcome=Outcome.FAILED, permanent=True, ended_by_operator=ended_by_operator, warning=True,
    )  # fmt: skip


def correctable(word: str, cause: str, remedy: str, *also: Place) -> ReasonFacts:
    """An attempt ends in a way that every other one would until the job's spec changes; the job waits for that."""
    places = _END | {Place.VALIDATED} | set(also)
    return ReasonFacts(
        word=word, cause=cause, remedy=remedy, group=Group.WAITING, places=places,
        outcome=Outcome.WITHDRAWN, wait=Wait.CHANGE, warning=True,
    )  # fmt: skip


def limit(word: str, cause: str, remedy: str) -> ReasonFacts:
    """The job has reached a limit between two attempts and is Failed."""
    places = frozenset({Place.RUNNING, Place.FAILED, Place.EVENT})
    return ReasonFacts(word=word, cause=cause, remedy=remedy, group=Group.LIMIT, places=places, warning=True)


def unknown(word: str) -> ReasonFacts:
    """A reason of a newer operator, found in a stored status. Nothing is charged for it, and it ends no job."""
    return ReasonFacts(
        word=word, cause="A newer version of the operator gave this reason.",
        remedy="The documentation of that version has the remedy.", group=Group.ATTEMPT, places=_END,
        outcome=Outcome.WITHDRAWN,
    )  # fmt: skip


def deadline(word: str, cause: str, remedy: str) -> ReasonFacts:
    """A limit that also ends the open attempt, at no charge."""
    return ReasonFacts(
        word=word, cause=cause, remedy=remedy, group=Group.LIMIT, places=_END | {Place.FAILED},
        outcome=Outcome.WITHDRAWN, ended_by_operator=True, warning=True,
    )  # fmt: skip


class ReasonWord(OpenEnum):
    """The base of the table: a word with its facts."""

    facts: ReasonFacts

    def __new__(cls, facts: ReasonFacts) -> Self:
        member = str.__new__(cls, facts.word)
        member._value_ = facts.word
        member.facts = facts
        return member

    @classmethod
    def read(cls, word: Any) -> Any:
        """The reason for this word. A word of a newer version is kept, with neutral facts."""
        found = super().read(word)
        if isinstance(found, cls) and not found.known:
            found.facts = unknown(word)
        return found
