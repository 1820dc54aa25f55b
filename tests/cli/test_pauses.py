"""When Ctrl-C ends a command that looks again and again."""

import os
import signal
import threading
import time

import pytest

from distill_cli.live import pauses as module
from distill_cli.live.pauses import pauses


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_between_pauses_waits_for_the_next_one() -> None:
    began = time.monotonic()
    with pauses(60) as pause:
        ctrl_c()
        time.sleep(0.1)  # as in a request
        with pytest.raises(KeyboardInterrupt):
            pause()
    assert time.monotonic() - began < 30


def test_ctrl_c_ends_a_pause_at_once() -> None:
    threading.Timer(0.2, ctrl_c).start()
    began = time.monotonic()
    with pauses(60) as pause, pytest.raises(KeyboardInterrupt):
        pause()
    assert time.monotonic() - began < 30


def test_a_second_ctrl_c_waits_for_nothing() -> None:
    with pauses(60):
        ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            ctrl_c()


def test_a_server_that_does_not_answer_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    with pauses(60):
        ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            time.sleep(60)  # as in a request
    time.sleep(0.5)  # no alarm comes later


def test_signals_are_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)
    with pauses(0) as pause:
        pause()
        ctrl_c()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)) == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_a_thread_only_sleeps() -> None:
    ended = []

    def look() -> None:
        with pauses(0) as pause:
            pause()
            ended.append(True)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(10)
    assert ended == [True]
