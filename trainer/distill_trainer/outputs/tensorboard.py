"""TensorBoard scalars of results.csv: one small event file for each epoch.

A file for each epoch can be replaced when a resumed run does the epoch again, so there is never a doubled or a lost
one, whatever was interrupted; TensorBoard reads all files of a folder as one run.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from distill_trainer.checkpoint.store.storage import atomic_write
from distill_trainer.outputs.optional import OutputProblem

_NAME = "events.out.tfevents."
_EPOCH = "epoch"
_DIGITS = 8


def write_events(folder: Path, rows: Sequence[Mapping[str, str]], wall_time: float) -> None:
    """Make the event files of `folder` those of `rows`, the rows of results.csv from the oldest to the newest.

    The newest row's file is always written, others only if they are missing; files of other epochs are deleted. Tags
    are the columns' names, steps the epochs. `wall_time` (Unix seconds) is written as the time of what is new.
    Raises OutputProblem without the package tensorboardX, TrainerError when the files cannot be written.
    """
    for unfinished in folder.glob(f".{_NAME}*"):  # of a killed write; TensorBoard would read it
        unfinished.unlink(missing_ok=True)
    known = {path.name: path for path in folder.glob(f"{_NAME}*")}
    wanted = {f"{_NAME}{int(row[_EPOCH]):0{_DIGITS}}": row for row in rows}
    for name in known.keys() - wanted.keys():
        known[name].unlink(missing_ok=True)
    for position, (name, row) in enumerate(wanted.items(), start=1):
        if name not in known or position == len(wanted):
            atomic_write(folder / name, _events(_scalars(row), int(row[_EPOCH]), wall_time))


def _scalars(row: Mapping[str, str]) -> dict[str, float]:
    """The row's finite numbers; an epoch that was not validated has empty columns."""
    scalars = {}
    for name, text in row.items():
        with contextlib.suppress(ValueError):
            if name != _EPOCH and math.isfinite(float(text)):
                scalars[name] = float(text)
    return scalars


def _events(scalars: Mapping[str, float], step: int, wall_time: float) -> bytes:
    """Content of an event file: the version that TensorBoard expects first, then all scalars."""
    try:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.record_writer import RecordWriter
    except ImportError as error:
        raise OutputProblem(
            f"the package {error.name} is missing; install distill-operator[trainer], or leave TensorBoard"
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
