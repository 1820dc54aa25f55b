"""HTML elements that several sections of report.html use. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def section(title: str, content: str) -> str:
    """A section with its heading; empty if it has no content."""
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def details(summary: str, content: str) -> str:
    """Content that is folded away."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def table(label: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls by itself if it is wider than the page. `head` is plain text; cells of `rows` are HTML, the
    first of each is the row's header.
    """
    top = "".join(f'<th scope="col">{escape(cell)}</th>' if cell else "<td></td>" for cell in head)
    body = "".join(
        f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest) + "</tr>"
        for first, *rest in rows
    )
    # A region that scrolls must be reachable by keyboard.
    return (
        f'<div class="wide-table" role="region" aria-label="{escape(label)}" tabindex="0">'
        f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """A list of names and values in words; values are HTML, names are plain text. Empty without rows."""
    body = "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in rows)
    return f"<dl>{body}</dl>" if rows else ""
