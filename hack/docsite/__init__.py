"""The documentation site, which mkdocs builds from docs/ and from the Markdown files in the root."""
