"""Links of a Markdown page of the repository, as they have to be in the site."""

import posixpath
import re
from collections.abc import Mapping

DOCS = "docs/"
_LINK = re.compile(
    r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>(?!\w+:)[^)#\s]+)(?P<anchor>#[^)\s]*)?\)"
)
_ATTRIBUTE = re.compile(r'(?P<name>\b(?:href|src))="(?P<target>(?!\w+:|#)[^"#]+)(?P<anchor>#[^"]*)?"')


def rewritten(markdown: str, source: str, pages: Mapping[str, str], repository: str) -> str:
    """The page with links that lead somewhere in the site.

    `source` is the page's path in the repository. `pages` has the path in the site of each file outside docs/ that is
    in the site, too. A link to any other file outside docs/ leads to `repository`, the address of the files there;
    without one, its text alone is left.
    """

    def link(match: re.Match[str]) -> str:
        found = _address(match["target"], source, pages, repository)
        if found is None:
            return match["text"]
        return f"{match['image']}[{match['text']}]({found}{match['anchor'] or ''})"

    def attribute(match: re.Match[str]) -> str:
        found = _address(match["target"], source, pages, repository)
        return f'{match["name"]}="{found or ""}{match["anchor"] or ""}"'

    return _ATTRIBUTE.sub(attribute, _LINK.sub(link, markdown))


def _address(target: str, source: str, pages: Mapping[str, str], repository: str) -> str | None:
    """Where a link leads in the site; None if nowhere."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if path in pages or path.startswith(DOCS):
        here = posixpath.dirname(_in_site(source, pages))
        return posixpath.relpath(_in_site(path, pages), here or ".")
    return f"{repository.rstrip('/')}/{path}" if repository else None


def _in_site(path: str, pages: Mapping[str, str]) -> str:
    return pages.get(path) or path.removeprefix(DOCS)
