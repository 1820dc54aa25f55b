"""What `make chaos` makes of processes that end while it looks at them."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks.chaos.local import disturbances
from benchmarks.chaos.local.run import Run
from benchmarks.small_run import Attempt
from distill_api.pod.report import TerminationMessage
from testcluster.linux.processes import ProcessId, children

MESSAGE = TerminationMessage(outcome="done", reason="Completed", message="", attempt=1)


@pytest.fixture
def attempt(tmp_path: Path) -> Any:
    """Makes an attempt whose launcher is a shell command."""
    made: list[Attempt] = []

    def start(command: str) -> Attempt:
        log = tmp_path / f"{len(made)}.log"
        with log.open("w") as stream:
            process = subprocess.Popen(["sh", "-c", command], stdout=stream, stderr=stream)
        config = SimpleNamespace(directories=SimpleNamespace(termination=str(tmp_path / f"{len(made)}.json")))
        made.append(Attempt(process, cast(Any, config), log, time.monotonic()))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        one.process.wait()


def test_children_are_those_that_run_and_no_zombies() -> None:
    with subprocess.Popen(["true"]) as ended, subprocess.Popen(["sleep", "60"]) as child:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
        found = [process.pid for process in children(os.getpid())]
        child.kill()
    assert child.pid in found
    assert ended.pid not in found
    assert children(child.pid) == []


def test_a_process_can_be_asked_to_stop_once_it_has_a_handler_for_it() -> None:
    deaf = ProcessId.of(os.getpid())
    assert deaf is not None
    assert not deaf.handles(signal.SIGTERM)
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        assert deaf.handles(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_truncated_message_is_a_killed_launchers_or_an_error(attempt: Any) -> None:
    killed = attempt("sleep 60")
    file = Path(killed.config.directories.termination)
    file.write_text(MESSAGE.to_json())
    assert killed.message() == MESSAGE
    file.write_text(MESSAGE.to_json()[:-9])
    killed.process.kill()
    killed.process.wait()
    assert killed.message() is None
    wrong = attempt("exit 3")
    wrong.process.wait()
    Path(wrong.config.directories.termination).write_text(MESSAGE.to_json()[:-9])
    with pytest.raises(ValueError, match="Invalid JSON"):
        wrong.message()


def test_a_log_that_ends_in_half_a_character_is_read(attempt: Any) -> None:
    one = attempt("printf 'half: \\342\\200'")
    one.process.wait()
    assert one.log_text().startswith("half: ")
    assert one.status() == {}


def test_a_rank_that_ends_in_the_middle_of_its_answer_has_said_nothing(attempt: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = attempt(f"echo 'rank 0 INFO: serving metrics and status on port {server.getsockname()[1]}'")
        one.process.wait()

        def break_off() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"state": "tra')

        thread = threading.Thread(target=break_off)
        thread.start()
        assert one.status() == {}
        thread.join()


def test_what_is_done_to_an_attempt_without_ranks_hits_nothing(attempt: Any) -> None:
    one = attempt("sleep 60")
    local, draw = cast(Any, SimpleNamespace(committed=lambda: [])), random.Random(0)
    for act in (disturbances.kill_a_rank, disturbances.stop_a_rank, disturbances.kill_the_writer):
        assert act(one, local, draw) == []
    assert [hit.pid for hit in disturbances.kill_everything(one, local, draw)] == [one.process.pid]
    one.process.wait()
    assert disturbances.kill_the_launcher(one, local, draw) == []


def test_an_attempt_that_fails_by_itself_is_an_error_and_not_tried_again(attempt: Any) -> None:
    local = SimpleNamespace(start=lambda _: attempt("echo broken; exit 3"), committed=lambda: [])
    run = Run(0, cast(Any, local), random.Random(0), 60.0, 20)
    with pytest.raises(RuntimeError, match=r"ended with 3 by itself: broken"):
        run.go(1)


def test_one_that_is_to_be_stopped_is_given_the_time_to_get_ready_for_it(attempt: Any, tmp_path: Path) -> None:
    """SIGTERM would kill a launcher that has only just begun, which the run would take for a failure."""
    message = tmp_path / "0.json"
    script = (
        "import signal, sys, time; from pathlib import Path\n"
        "def stop(*_): Path(sys.argv[1]).write_text(sys.argv[2]); sys.exit(143)\n"
        "time.sleep(3); signal.signal(signal.SIGTERM, stop); time.sleep(60)\n"
    )
    (tmp_path / "launcher.py").write_text(script)
    told = MESSAGE.to_json()
    one = attempt(f"exec {sys.executable} {tmp_path}/launcher.py {message} '{told}'")
    run = Run(0, cast(Any, SimpleNamespace(committed=lambda: [])), random.Random(0), 60.0, 20)
    run._stop(one, {}, disturbances.Disturbance(0, 1, "SIGKILL checkpoint writer", 0.0, "starting", None))
    assert one.message() == MESSAGE
