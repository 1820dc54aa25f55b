"""What ranks write to stderr comes out once, and its end is kept."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

from tests.support.machine.python import environment

LINES = 20_000
_RANKS = """
import json, os, subprocess, sys
from distill_trainer.process.telemetry.stderr import RankStderr
stderr = RankStderr(2)
for number in range(2):
    if os.fork() == 0:
        stderr.redirect(number)
        if number == 1:  # as the writer process, which outlives its rank
            subprocess.Popen(["sleep", "10"], stdout=subprocess.DEVNULL, start_new_session=True)
        for line in range(int(sys.argv[1])):
            os.write(2, f"{number} {line}\\n".encode())
        os.write(2, b"terminal" if os.isatty(2) else b"pipe")
        os._exit(0)
stderr.start()
for _ in range(2):
    os.wait()
said = stderr.stop()
print(json.dumps([said(0), said(1)]))
"""


def ranks(lines: int, stderr: int) -> list[str]:
    arguments = [sys.executable, "-c", _RANKS, str(lines)]
    done = subprocess.run(arguments, env=environment(), stdout=subprocess.PIPE, stderr=stderr, timeout=60, check=True)
    kept: list[str] = json.loads(done.stdout)
    return kept


def test_every_line_is_passed_on_in_order_and_the_end_is_kept(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        kept = ranks(LINES, log.fileno())
    written = (tmp_path / "log").read_text().replace("pipe", "").splitlines()
    for number in range(2):
        own = [line for line in written if line.startswith(f"{number} ")]
        assert own == [f"{number} {line}" for line in range(LINES)]
        assert kept[number].endswith(f"{number} {LINES - 1}\npipe")
        assert len(kept[number]) == 64 * 1024


def test_a_terminal_is_left_to_the_ranks() -> None:
    ours, theirs = pty.openpty()
    assert ranks(3, theirs) == ["", ""]
    os.close(theirs)
    assert os.read(ours, 1000).decode().count("terminal") == 2
