"""Read pyproject.toml for the Dockerfile, so that layers depend on what they need of it and on nothing else.

Writes ``EXTRA.txt`` for each extra that is named, and ``metadata``, which tells importlib the project's version.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
for extra in sys.argv[1:]:
    requirements = project["dependencies"] + project["optional-dependencies"][extra]
    Path(f"{extra}.txt").write_text("\n".join(requirements) + "\n")

name, version = project["name"], project["version"]
metadata = Path("metadata") / f"{name.replace('-', '_')}-{version}.dist-info" / "METADATA"
metadata.parent.mkdir(parents=True)
metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
