"""Who may lead, as client-go decides it: the decision alone, for one contender.

Clocks of different machines are never compared. A contender measures with its own clock how long the Lease has not
changed; the leader, how long ago it sent the request that last renewed it. The leader stops after `renew` seconds and
nobody takes the Lease before `lease` seconds, so there are never two.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Times:
    """Seconds; client-go's defaults."""

    lease: float = 15.0
    """How long others respect a Lease that is not renewed."""
    renew: float = 10.0
    """How long a leader works on without a renewal."""
    retry: float = 2.0
    """Time between two tries to renew or to take the Lease."""


@dataclass(frozen=True)
class Record:
    """What the Lease says."""

    holder: str
    """Identity of the leader; empty after it has released the Lease."""
    seconds: float
    """How long this Lease is respected without a renewal."""
    transitions: int = 0
    """How often the leader has changed."""
    version: str = ""
    """resourceVersion; empty if the Lease does not exist."""


NOBODY = Record("", 0.0)
"""There is no Lease."""


class Election:
    """What one contender knows. Every `now` is from the same monotonic clock."""

    def __init__(self, me: str, times: Times) -> None:
        self.me = me
        self.times = times
        self.record = NOBODY
        self._unchanged_since = 0.0
        self._renewed_at: float | None = None

    def seen(self, record: Record, now: float) -> None:
        """The Lease was read. A leader that reads another holder has lost it."""
        if record != self.record:
            self.record, self._unchanged_since = record, now
        if record.holder != self.me:
            self._renewed_at = None

    def may_take(self, now: float) -> bool:
        """Whether the Lease as it was last read is free, or this contender's own."""
        if self.record.holder in ("", self.me):
            return True
        return now - self._unchanged_since >= self.record.seconds

    def claim(self) -> Record:
        """What to write in order to take or to keep the Lease, if it is still as it was last read."""
        changes = self.record.holder != self.me
        return Record(self.me, self.times.lease, self.record.transitions + changes, self.record.version)

    def taken(self, record: Record, asked_at: float) -> None:
        """The claim is stored; `asked_at` is the time before the request was sent."""
        self.record, self._unchanged_since, self._renewed_at = record, asked_at, asked_at

    def release(self) -> Record:
        """What to write in order to leave the Lease to others, who take it as soon as they see it. Leads no more."""
        self._renewed_at = None
        return replace(self.record, holder="", seconds=1.0)

    def seconds_left(self, now: float) -> float:
        """How long this contender leads without a further renewal; 0 if it does not lead."""
        return max(0.0, self._renewed_at + self.times.renew - now) if self._renewed_at is not None else 0.0
