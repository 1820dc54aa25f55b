"""pyproject.toml states the version of the project; whatever else states it agrees."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from email import message_from_string
from pathlib import Path

import yaml

from tests.support.machine.python import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
TEXTS = ("*.md", "*.py", "*.yaml", "*.json", "*.tpl", "*.txt")
FOLDERS = ("charts", "docs", "examples", "tests", "hack", "images", "crds", "operator", "trainer", "cli")


def test_the_chart_has_it() -> None:
    chart = yaml.safe_load((ROOT / "charts/distill-operator/Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)


def test_the_newest_release_in_the_changelog_is_it() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(VERSION)} – \d{{4}}-\d\d-\d\d", headings[1]), headings[1]


def test_images_carry_it(tmp_path: Path) -> None:
    """The build_info metrics read it with importlib.metadata, which finds in the images what this script writes."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    subprocess.run([sys.executable, ROOT / "images/requirements.py", "operator"], cwd=tmp_path, check=True)
    (metadata,) = (tmp_path / "metadata").glob(f"distill_operator-{VERSION}.dist-info/METADATA")
    assert message_from_string(metadata.read_text())["Version"] == VERSION


def test_the_installed_package_has_it() -> None:
    assert importlib.metadata.version("distill-operator") == VERSION, "run `make venv`"


def test_no_image_is_named_with_another() -> None:
    places = [path for folder in FOLDERS for kind in TEXTS for path in (ROOT / folder).rglob(kind)]
    named = {
        f"{path.relative_to(ROOT)}: {image}"
        for path in (*ROOT.glob("*.md"), *places)
        for image, tag in re.findall(r"\b(distill-(?:operator|trainer):v?(\d+\.\d+\.\d+))", path.read_text())
        if tag != VERSION
    }
    assert named == set()
