"""Writes results.csv as TensorBoard scalars: one small event file per epoch.

A resumed run that repeats an epoch replaces its file, so no epoch is ever lost or duplicated. TensorBoard reads all
files of a folder as one run.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from distill_trainer.outputs.optional import OutputProblem
from distill_trainer.outputs.results import Row

_NAME = "events.out.tfevents."
_EPOCH = "epoch"
_DIGITS = 8


def event_files(folder: Path, rows: Sequence[Row], wall_time: float) -> dict[Path, bytes]:
    """The event files that `folder` needs to match `rows`, those of results.csv, oldest first.

    The newest row's file is always one of them, others only if they are missing. Files of other epochs are deleted.
    Tags are column names and steps are epochs. `wall_time` (Unix seconds) is the time of the new events.
    Raises OutputProblem if tensorboardX is not installed.
    """
    existing = {path.name: path for path in folder.glob(f"{_NAME}*")}
    wanted = {f"{_NAME}{int(row[_EPOCH]):0{_DIGITS}}": row for row in rows}
    for name in existing.keys() - wanted.keys():
        existing[name].unlink(missing_ok=True)
    return {
        folder / name: _events(_scalars(row), int(row[_EPOCH]), wall_time)
        for position, (name, row) in enumerate(wanted.items(), start=1)
        if name not in existing or position == len(wanted)
    }


def _scalars(row: Row) -> dict[str, float]:
    """The row's finite numbers. Columns of an epoch without validation are empty."""
    scalars = {}
    for name, text in row.items():
        with contextlib.suppress(ValueError):
            if name != _EPOCH and math.isfinite(float(text)):
                scalars[name] = float(text)
    return scalars


def _events(scalars: Mapping[str, float], step: int, wall_time: float) -> bytes:
    """Content of an event file: the version that TensorBoard expects as the first event, then all scalars."""
    try:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.record_writer import RecordWriter
    except ImportError as error:
        raise OutputProblem(
            f"the package {error.name} is missing; install distill-operator[trainer] to write TensorBoard events"
        ) from None
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "events"
        writer = RecordWriter(str(path))
        for event in (
            Event(wall_time=wall_time, file_version="brain.Event:2"),
            Event(wall_time=wall_time, step=step, summary=Summary(value=values)),
        ):
            writer.write(event.SerializeToString())
        writer.close()
        return path.read_bytes()
