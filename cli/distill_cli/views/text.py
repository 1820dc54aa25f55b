"""Numbers and times as people read them, in few letters."""

from collections.abc import Sequence
from datetime import datetime

NONE = "–"
_BARS = "▁▂▃▄▅▆▇█"


def duration(seconds: float | None) -> str:
    """Two units at most: 45s, 12m05s, 3h07m, 2d4h."""
    if seconds is None:
        return NONE
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600}h"


def since(moment: datetime | None, now: datetime) -> str:
    """How long ago."""
    return NONE if moment is None else duration((now - moment).total_seconds())


def number(value: float | None, digits: int = 0) -> str:
    """With separators of thousands."""
    return NONE if value is None else f"{value:,.{digits}f}"


def score(value: float | None) -> str:
    """An mAP or a loss."""
    return NONE if value is None else f"{value:.3f}"


def percent(part: float | None) -> str:
    """A share between 0 and 1."""
    return NONE if part is None else f"{100 * part:.0f}%"


def size(octets: float) -> str:
    """Bytes, in units of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if octets < 1000:
            return f"{octets:.0f} {unit}" if unit == "B" else f"{octets:.1f} {unit}"
        octets /= 1000
    return f"{octets:.1f} TB"


def plural(count: int, noun: str) -> str:
    """1 node, 2 nodes."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def spark(values: Sequence[float], width: int = 32) -> str:
    """A curve as blocks, at most `width` of them; each is the mean of its part of the values."""
    if not values:
        return ""
    count = min(width, len(values))
    parts = [values[i * len(values) // count : (i + 1) * len(values) // count] for i in range(count)]
    means = [sum(part) / len(part) for part in parts]
    low, span = min(means), max(means) - min(means)
    top = len(_BARS) - 1
    return "".join(_BARS[round((mean - low) / span * top) if span else top // 2] for mean in means)
