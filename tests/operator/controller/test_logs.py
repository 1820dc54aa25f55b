"""The log as JSON: one object a line, which says what job it is about."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from distill_api.logs import JsonFormatter
from distill_operator.controller.telemetry import logs

LOG = logging.getLogger("distill_operator.test")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(logs.facts))
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel("INFO")
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_time_level_logger_and_message(stream: io.StringIO) -> None:
    LOG.warning("%d of\n%s", 1, "two lines")
    (line,) = lines(stream)
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "WARNING", "logger": "distill_operator.test", "message": "1 of\ntwo lines"}


def test_what_a_pass_logs_names_its_job_and_attempt_and_no_other_does(stream: io.StringIO) -> None:
    async def run_pass(name: str, attempt: int) -> None:
        logs.about(("team", name))
        await asyncio.sleep(0)
        LOG.info("begins")
        logs.about(("team", name), attempt)
        await asyncio.sleep(0)
        LOG.info("ends")

    async def story() -> None:
        await asyncio.gather(asyncio.create_task(run_pass("a", 1)), asyncio.create_task(run_pass("b", 2)))
        LOG.info("outside")

    asyncio.run(story())
    told = [(line["message"], line.get("job"), line.get("attempt")) for line in lines(stream)]
    assert sorted(told[:2]) == [("begins", "team/a", None), ("begins", "team/b", None)]
    assert sorted(told[2:4]) == [("ends", "team/a", 1), ("ends", "team/b", 2)]
    assert told[4:] == [("outside", None, None)]


def test_kopfs_own_messages_name_the_job_that_they_are_about(stream: io.StringIO) -> None:
    reference = {"kind": "DistillJob", "namespace": "team", "name": "tiny"}
    logging.getLogger("kopf.objects").warning("handler failed", extra={"k8s_ref": reference})
    logging.getLogger("kopf.objects").warning("handler failed", extra={"k8s_ref": {"kind": "Pod", "name": "p"}})
    assert [line.get("job") for line in lines(stream)] == ["team/tiny", None]


def test_an_exception_is_one_line_with_its_traceback(stream: io.StringIO) -> None:
    try:
        raise KeyError("x")
    except KeyError:
        LOG.exception("failed")
    (line,) = lines(stream)
    assert "Traceback" in line["exception"]
    assert line["exception"].endswith("KeyError: 'x'")
