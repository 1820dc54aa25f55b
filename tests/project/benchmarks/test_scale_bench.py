"""`make bench-scale`: the arithmetic of its prediction."""

import pytest

from benchmarks.bench.scale import Machines, Work, predicted, ring_bytes

WORK = Work(images=16, gigaflops=400, gradient_bytes=10_000_000)


def test_a_ring_sends_less_than_twice_the_gradients_whatever_the_ranks() -> None:
    assert [ring_bytes(12, ranks) for ranks in (1, 2, 4)] == [0, 12, 18]


def test_a_gpu_alone_exchanges_nothing() -> None:
    found = predicted(WORK, Machines("one", 1, 1, teraflops=40, inside=300, between=0))
    assert (found.compute, found.exchange, found.efficiency) == (pytest.approx(0.01), 0, 1)
    assert found.images_per_second == pytest.approx(1600)


def test_the_slow_network_between_nodes_counts_once_a_node() -> None:
    found = predicted(WORK, Machines("two nodes", 2, 8, teraflops=40, inside=100, between=10))
    assert found.exchange == pytest.approx(2 * 7 / 8 * 1e7 / 100e9 + 1e7 / 10e9)
    assert found.images_per_second == pytest.approx(16 * 16 / (found.compute + found.exchange))
    assert found.efficiency == pytest.approx(found.compute / (found.compute + found.exchange))
