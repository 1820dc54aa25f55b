"""What `make test` promises: a clean home, all parts whatever the first says, and their closing lines at the end."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.machine.python import ROOT

SCRIPTS = ROOT / "scripts"
CONFIGURED = {
    ".config/uv/uv.toml": "UV_CONFIG_FILE",
    ".config/pip/pip.conf": "PIP_CONFIG_FILE",
    ".npmrc": "NPM_CONFIG_USERCONFIG",
    ".netrc": "NETRC",
}
CACHES = {"DISTILL_CACHE": ".cache/distill-operator", "UV_CACHE_DIR": ".cache/uv", "PIP_CACHE_DIR": ".cache/pip"}
FAKE_PYTEST = """#!/bin/sh
case "$*" in
    *"not alone"*) echo "= $FIRST in 1.00s ="; exit "${FIRST%% *}" ;;
    *"-m alone"*) echo "$* "; echo "= $SECOND in 2.00s ="; exit "${SECOND%% *}" ;;
    *"-m patient"*) echo "$* at $(nice)"; echo "= $FOURTH in 4.00s ="; exit "${FOURTH%% *}" ;;
    *) echo "$* "; echo "= $THIRD in 3.00s ="; exit "${THIRD%% *}" ;;
esac
"""
PASSED, NONE = "0 passed", "5 no tests ran"


def in_a_clean_home(command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPTS / "clean_home.sh", "bash", "-c", command],
        env={"PATH": os.environ["PATH"]} | environ, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_home_and_temporary_directory_are_empty_and_removed_afterwards(tmp_path: Path) -> None:
    home, base = tmp_path / "home", Path("/var/tmp")
    (home / ".config" / "Ultralytics").mkdir(parents=True)
    ran = in_a_clean_home(
        'echo "$HOME $TMPDIR ${XDG_CONFIG_HOME-none} ${YOLO_CONFIG_DIR-none}"; ls -A "$HOME" "$TMPDIR" | wc -w; '
        'mkdir -m 0 "$TMPDIR/closed"; exit 3',
        HOME=str(home), TMPDIR=str(base), XDG_CONFIG_HOME=str(home / ".config"), YOLO_CONFIG_DIR=str(home),
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (3, "")
    (mine, temporary, *variables), (listed,) = (line.split() for line in ran.stdout.splitlines())
    assert variables == ["none", "none"]
    assert listed == "2", "ls names the two folders and nothing in them"
    for folder in (Path(mine), Path(temporary)):
        assert folder.is_relative_to(base)
        assert len(str(folder)) < 40, "too long for the paths of sockets in it"
        assert not folder.exists()
    assert not Path(mine).parent.exists()


def test_caches_and_the_way_to_the_registries_are_handed_on_by_name(tmp_path: Path) -> None:
    for name in CONFIGURED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = [*CONFIGURED.values(), *CACHES]
    command = "; ".join(f'echo "${{{name}-none}}"' for name in names)
    found = in_a_clean_home(command, HOME=str(tmp_path), TMPDIR="/var/tmp").stdout.splitlines()
    assert dict(zip(names, found, strict=True)) == {
        **{variable: str(tmp_path / name) for name, variable in CONFIGURED.items()},
        **{variable: str(tmp_path / name) for variable, name in CACHES.items()},
    }
    own = dict.fromkeys(names, "/mine")
    found = in_a_clean_home(command, HOME=str(tmp_path), TMPDIR="/var/tmp", **own).stdout.splitlines()
    assert found == ["/mine"] * len(names), "what is set already stays"
    (tmp_path / "bare").mkdir()
    found = in_a_clean_home(command, HOME=str(tmp_path / "bare"), TMPDIR="/var/tmp").stdout.splitlines()
    assert found[: len(CONFIGURED)] == ["none"] * len(CONFIGURED), "a file that does not exist would be an error"


def test_go_keeps_its_settings_and_modules(tmp_path: Path) -> None:
    go = tmp_path / "go"
    go.write_text('#!/bin/sh\n[ "$1" = env ] && echo "$HOME/$2"\n')
    go.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    ran = in_a_clean_home('echo "$GOENV $GOPATH $GOMODCACHE $GOCACHE"', PATH=path, HOME="/real", TMPDIR="/var/tmp")
    assert ran.stdout.split() == ["/real/GOENV", "/real/GOPATH", "/real/GOMODCACHE", "/real/GOCACHE"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Where pytest prints the closing lines that $FIRST to $FOURTH say and exits with the number they begin with."""
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE_PYTEST)
    python.chmod(0o755)
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPTS / "test.sh", tmp_path / "scripts")
    return tmp_path


@pytest.mark.parametrize(
    ("said", "arguments", "status"),
    [
        ([PASSED, PASSED, PASSED, PASSED], [], 0),
        (["1 failed", PASSED, PASSED, PASSED], [], 1),
        ([PASSED, "1 failed", PASSED, PASSED], [], 1),
        ([PASSED, PASSED, "1 failed", PASSED], [], 1),
        ([PASSED, PASSED, PASSED, "1 failed"], [], 1),
        ([NONE, PASSED, PASSED, PASSED], ["-k", "some"], 0),
        ([PASSED, PASSED, NONE, NONE], ["-k", "some"], 0),
        ([NONE, NONE, PASSED, NONE], ["-k", "some"], 0),
        ([NONE, NONE, NONE, NONE], ["-k", "none"], 5),
        ([NONE, PASSED, PASSED, PASSED], [], 1),
        ([PASSED, PASSED, PASSED, NONE], [], 1),
        (["2 errors", NONE, NONE, NONE], ["-k", "some"], 1),
    ],
)
def test_all_parts_run_and_each_fails_the_whole(
    checkout: Path, said: list[str], arguments: list[str], status: int
) -> None:
    ran = subprocess.run(
        [checkout / "scripts" / "test.sh", *arguments],
        env=os.environ | dict(zip(("FIRST", "SECOND", "THIRD", "FOURTH"), said, strict=True)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == status
    closing = [f"= {words} in {number}.00s =" for number, words in enumerate(said, 1)]
    names = ["on three processes:", "in pairs:", "with a cluster:", "beside them:"]
    assert ran.stdout.splitlines()[-8:] == [line for pair in zip(names, closing, strict=True) for line in pair]
    assert " ".join(["-m alone --ignore=tests/e2e tests", *arguments]) in ran.stdout
    assert " ".join(["tests/e2e", *arguments, ""]) in ran.stdout
    assert " ".join(["-m patient tests/trainer", *arguments, "at 19"]) in ran.stdout
