"""An API server that is away for a while: who waits or watches goes on, and who asks for the first time is told."""

import threading
import time

import pytest

from distill_client import Unreachable
from distill_client.apiserver import patience
from distill_client.apiserver.patience import Patience
from testcluster import ControlPlane
from tests.client.conftest import Desk, started
from tests.client.terminal.test_terminal import CTRL_C, distill
from tests.support.apiserver.api import Refused, wait_for


def restart(desk: Desk, plane: ControlPlane) -> None:
    """Restart the API server. When it says that it is ready, it cannot yet read every kind."""
    plane.restart_api_server()

    def reads() -> bool:
        try:
            desk.api.get("DistillJob", desk.namespace, "tiny")
        except Refused as refused:
            if refused.code != 429:
                raise
            return False
        return True

    wait_for(reads, 60)


def test_a_client_that_waits_survives_a_restart_of_the_api_server(desk: Desk, plane: ControlPlane) -> None:
    started(desk)
    phases: list[str] = []
    waiting = threading.Thread(target=lambda: phases.append(desk.client.wait("tiny", timeout=120).phase))
    waiting.start()
    time.sleep(1)  # its watch is open
    restart(desk, plane)
    assert waiting.is_alive()
    desk.tell("tiny", {"phase": "Succeeded"})
    waiting.join(60)
    assert phases == ["Succeeded"]


def test_a_list_that_is_watched_survives_a_restart(desk: Desk, plane: ControlPlane) -> None:
    started(desk)
    with distill(desk, "list", "-w") as shown:
        shown.expect("tiny  Running")
        restart(desk, plane)
        desk.tell("tiny", {"phase": "Recovering"})
        shown.expect("tiny  Recovering")
        shown.type(CTRL_C)
        assert shown.end() == 130


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When a server that is away was asked; one asks it again without a pause."""
    monkeypatch.setattr(patience, "RETRY_SECONDS", 0.01)
    asked: list[float] = []
    return asked


def test_patience_ends_and_begins_with_an_answer(away: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    def ask() -> None:
        away.append(time.monotonic())
        raise Unreachable("the API server does not answer")

    one = Patience()
    with pytest.raises(Unreachable):
        one.read(ask)
    assert len(away) == 1, "who has never had an answer is told at once"
    assert one.read(lambda: 7) == 7
    with pytest.raises(Unreachable):
        one.read(ask, until=time.monotonic() + 0.1)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.1)
    with pytest.raises(Unreachable):
        one.read(ask)
    assert len(away) > 5
    wait_for(lambda: one.read(lambda: True), 1)
