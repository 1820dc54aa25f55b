"""Log lines of several pods become one log in the order of time."""

from hypothesis import given
from hypothesis import strategies as st

from distill_client import LogLine
from distill_client.logs import Merger, merged, parse


def test_times_are_compared_whatever_their_digits() -> None:
    short, long = parse("a", "2026-11-23T12:00:00.5Z x"), parse("b", "2026-11-23T12:00:00.123456789Z y")
    whole = parse("c", "2026-11-23T12:00:00Z z")
    assert [line.text for line in sorted([short, long, whole])] == ["z", "y", "x"]
    assert parse("a", "no time here") == LogLine("", "a", "no time here")


def test_a_line_without_a_time_stays_with_its_pod() -> None:
    lines = {
        "a": [parse("a", "2026-11-23T12:00:02Z Traceback"), parse("a", "  File x")],
        "b": [parse("b", "2026-11-23T12:00:01Z before"), parse("b", "2026-11-23T12:00:03Z after")],
    }
    assert [line.text for line in merged(lines)] == ["before", "Traceback", "  File x", "after"]


def test_a_line_is_held_for_those_that_come_later() -> None:
    merger = Merger(hold=1.0)
    merger.add(LogLine("2", "a", "second"), now=0.0)
    assert list(merger.ready(0.5)) == []
    merger.add(LogLine("1", "b", "first"), now=0.6)
    assert list(merger.ready(1.1)) == []
    assert [line.text for line in merger.ready(1.7)] == ["first", "second"]


@given(st.lists(st.lists(st.integers(0, 99)).map(sorted), max_size=4))
def test_no_line_is_lost_and_each_pods_order_is_kept(pods: list[list[int]]) -> None:
    lines = {
        str(i): [LogLine(f"{at:02}", str(i), str(n)) for n, at in enumerate(times)] for i, times in enumerate(pods)
    }
    found = list(merged(lines))
    assert [line.time for line in found] == sorted(line.time for of_pod in lines.values() for line in of_pod)
    for pod, of_pod in lines.items():
        assert [line for line in found if line.pod == pod] == of_pod
