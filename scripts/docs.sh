#!/usr/bin/env bash
# Builds the documentation site into a folder. A link that leads nowhere, or a page that is not in the navigation, is an
# error.
set -euo pipefail
cd "$(dirname "$0")/.."

site=$(realpath -m "${1:?give a folder for the site}")
PYTHONPATH=hack${PYTHONPATH:+:$PYTHONPATH} .venv/bin/python -m mkdocs build --quiet --strict --site-dir "$site"
