"""Quantities of resources as Kubernetes writes them, such as 500m, 2, 1.5e3 and 16Gi."""

import re
from decimal import Decimal
from typing import Any, Final

PATTERN: Final = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$"
"""Quantities that are not negative."""
_BINARY, _DECIMAL = "KMGTPE", {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def amount(text: str) -> Decimal:
    """The number that a quantity stands for. Raises ValueError if it is none."""
    found = re.fullmatch(PATTERN, text)
    if found is None:
        raise ValueError(f"{text!r} is not a quantity; write one such as 500m, 2 or 16Gi")
    number, unit = Decimal(found[1]), found[3] or ""
    if unit.endswith("i"):
        return number * Decimal(1024) ** (_BINARY.index(unit[0]) + 1)
    return number.scaleb(_DECIMAL[unit] if unit in _DECIMAL else int(unit[1:] or 0))


def written(value: Any) -> str:
    """The quantity as text; YAML has whole numbers without quotes. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a quantity; write it in quotes, such as '500m', '0.5' or '16Gi'")
    amount(value)
    return value
