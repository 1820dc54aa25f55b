"""GitHub's Markdown as Python-Markdown reads it."""

import re
from collections.abc import Iterator

_ITEM = re.compile(r"(?:[-*]|\d+\.) ")
_FENCE = re.compile(r" *```")


def converted(markdown: str) -> str:
    """The text with a blank line before each list, and two spaces in place of a backslash that ends a line."""
    return "\n".join(_lines(markdown.split("\n")))


def _lines(lines: list[str]) -> Iterator[str]:
    code, before = False, ""
    for line in lines:
        if _FENCE.match(line):
            code = not code
        elif not code:
            follows_text = before.strip() and not before.startswith((" ", "|")) and not _ITEM.match(before)
            if _ITEM.match(line) and follows_text:
                yield ""
            if line.endswith("\\"):
                line = f"{line[:-1]}  "
        yield line
        before = line
