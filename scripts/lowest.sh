#!/usr/bin/env bash
# Imports every module of the trainer with the lowest versions that pyproject.toml allows of what it depends on, and the
# parts that these are built against; all else is that of .venv. torch and torchvision are, too, unless TORCH=1 asks for
# their lowest versions, which are gigabytes: tests/project/test_torch_floor.py is about them. Needs a package index.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/uv pip compile --quiet --resolution lowest-direct --extra trainer --overrides overrides.txt \
    --no-annotate --no-header --output-file "$work/lowest.txt" pyproject.toml
.venv/bin/python - "$work/lowest.txt" >"$work/direct.txt" <<'PYTHON'
import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
wanted = project["dependencies"] + project["optional-dependencies"]["trainer"]
direct = {re.match(r"[\w.-]+", line)[0].lower() for line in wanted} - {"torch", "torchvision"}
direct |= {"numpy", "pydantic-core"}
for line in Path(sys.argv[1]).read_text().splitlines():
    if line.split("==")[0].lower() in direct:
        print(line)
PYTHON
.venv/bin/uv venv --quiet --python .venv/bin/python "$work/venv"
.venv/bin/uv pip install --quiet --no-deps --python "$work/venv/bin/python" --requirements "$work/direct.txt"
if [ "${TORCH:-}" = 1 ]; then
    grep -E '^torch(vision)?==' "$work/lowest.txt" >"$work/torch.txt"
    .venv/bin/uv pip install --quiet --python "$work/venv/bin/python" --requirements "$work/torch.txt"
    cat "$work/torch.txt" >>"$work/direct.txt"
fi
others=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
own=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "$others" >"$own/others.pth" # comes after the lowest versions on the path
PYTHONPATH=crds:trainer "$work/venv/bin/python" - <<'PYTHON'
import importlib
import pkgutil

import distill_trainer

modules = [name for _, name, _ in pkgutil.walk_packages(distill_trainer.__path__, "distill_trainer.")]
for name in ["cv2", "onnx", "onnxslim", "tensorboardX", *modules]:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(f"{len(modules)} modules can be imported")
PYTHON
sed 's/^/with /' "$work/direct.txt"
