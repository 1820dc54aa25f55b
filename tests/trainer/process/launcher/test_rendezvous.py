"""Where the nodes of a gang meet: the endpoint, and the wait for its name."""

import pytest

from distill_api.errors import Permanent, Retryable
from distill_trainer.process.launcher.rendezvous import Endpoint, wait_for_name
from tests.support.machine.clock import Clock


def test_a_name_that_appears_late_is_waited_for_and_a_missing_one_is_told() -> None:
    clock = Clock()
    wait_for_name("node-0", 60, resolved=lambda _: clock.now > 1020, clock=clock, sleep=clock.sleep)
    assert 1020 < clock.now < 1024
    with pytest.raises(Retryable, match=r"node-0 \(node 0\) did not resolve within 60 s"):
        wait_for_name("node-0", 60, resolved=lambda _: False, clock=clock, sleep=clock.sleep)


@pytest.mark.parametrize("text", ["host", "host:", ":1", "host:0", "host:70000", "host:x"])
def test_a_wrong_endpoint_is_a_permanent_error(text: str) -> None:
    with pytest.raises(Permanent, match="it must be host:port"):
        Endpoint.parse(text)
