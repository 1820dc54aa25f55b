"""Values, names and colours as Grafana shows them: units, legends, thresholds, mappings, overrides."""

import math
import re
from collections.abc import Mapping
from typing import Any

Panel = Mapping[str, Any]

NAMED = {"green": "#73BF69", "orange": "#FF9830", "red": "#F2495C", "blue": "#5794F2", "yellow": "#FADE2A",
         "text": "#CCCCDC"}  # fmt: skip
PALETTE = ("#73BF69", "#F2CC0C", "#8AB8FF", "#FF780A", "#F2495C", "#5794F2", "#B877D9", "#FADE2A", "#19730E", "#C4162A",
           "#1F60C4", "#FF9830", "#FFB357", "#8F3BB8")  # fmt: skip
"""Grafana's classic palette, with a clearer yellow and orange in front."""


def formatted(value: float, unit: str) -> str:
    """A value with its unit."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    if unit == "percentunit":
        return f"{_plain(100 * value, 1)}%"
    if unit == "s":
        return _seconds(value)
    if unit == "bytes":
        return _scaled(value, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))
    if unit == "sci":
        return f"{value:.2e}"
    text = _scaled(value, 1000, ("", " K", " Mil", " Bil")) if unit == "short" else _plain(value, 3)
    return f"{text} ops/s" if unit == "ops" else text


def legend(template: str, labels: Mapping[str, str]) -> str:
    """A legend with its labels put in."""
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), template)


def color(name: str) -> str:
    """A colour of the boards as matplotlib knows it."""
    return NAMED.get(name, name)


def threshold_color(value: float, panel: Panel) -> str:
    """The colour of the highest threshold that the value reaches."""
    reached = "text"
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            reached = step["color"]
    return color(reached)


def mapped(value: float, mappings: list[Any]) -> tuple[str, str] | None:
    """Text and colour that a value is mapped to."""
    for mapping in mappings:
        result = mapping["options"].get(f"{value:g}")
        if result is not None:
            return result["text"], color(result["color"])
    return None


def overrides(panel: Panel, name: str) -> dict[str, Any]:
    """The properties that the panel sets for the series or column `name`, by their ids."""
    found: dict[str, Any] = {}
    for override in panel["fieldConfig"].get("overrides") or []:
        if override["matcher"]["options"] == name:
            found |= {prop["id"]: prop.get("value") for prop in override["properties"]}
    return found


def shown(panel: Panel, name: str, index: int) -> tuple[str, str]:
    """Name and colour of the series `name`, the panel's `index`th."""
    properties = overrides(panel, name)
    fixed = properties.get("color") or {}
    return properties.get("displayName", name), color(fixed.get("fixedColor", PALETTE[index % len(PALETTE)]))


def _plain(value: float, digits: int) -> str:
    if value and abs(value) < 10 ** (1 - digits):
        return f"{value:.2g}"
    return (
        f"{value:.{digits if abs(value) < 10 else min(digits, 1)}f}".rstrip("0").rstrip(".")
        if value % 1
        else f"{value:.0f}"
    )


def _scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    power = 0
    while abs(value) >= base and power < len(units) - 1:
        value, power = value / base, power + 1
    return f"{_plain(value, 2)}{units[power]}"


def _seconds(value: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "mins")):
        if abs(value) >= size:
            return f"{_plain(value / size, 2)} {unit}"
    return f"{_plain(1000 * value, 1)} ms" if 0 < abs(value) < 1 else f"{_plain(value, 2)} s"
