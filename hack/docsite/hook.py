"""What mkdocs calls while it builds the site: it adds the root's pages, and turns GitHub's Markdown into the site's."""

from pathlib import Path
from typing import Any

from docsite.dialect import converted
from docsite.links import DOCS, rewritten

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Files in the root that are pages of the site."""
_SOURCES = {page: source for source, page in PAGES.items()}


def on_files(files: Any, config: Any) -> Any:
    """Add the root's pages."""
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:  # noqa: ARG001
    """The page's text with links that work in the site."""
    source = _SOURCES.get(page.file.src_uri, DOCS + page.file.src_uri)
    repository = f"{config.repo_url.rstrip('/')}/blob/main" if config.repo_url else ""
    return converted(rewritten(markdown, source, PAGES, repository))
