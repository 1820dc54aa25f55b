"""What a rank prints while it trains."""

import io

from distill_trainer.process.telemetry.console import Console


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def run_epoch(console: Console) -> None:
    console.epoch_started(1, 2, batches=2)
    console.batch_done({"box": 1.0})
    console.batch_done({"box": 1.0})
    console.epoch_done(1, 2, {"box": 1.25, "cls": 2.0, "dfl": 0.5, "dis": 3.0}, 4.0, 0.125)


def test_without_a_terminal_there_is_one_line_per_epoch() -> None:
    stream = io.StringIO()
    run_epoch(Console(enabled=True, stream=stream))
    assert stream.getvalue() == "epoch 1/2  box 1.25  cls 2  dfl 0.5  dis 3  mAP50-95 0.1250  4.0s\n"


def test_in_a_terminal_there_is_a_bar_and_other_ranks_say_nothing() -> None:
    terminal, silent = Terminal(), Terminal()
    run_epoch(Console(enabled=True, stream=terminal))
    run_epoch(Console(enabled=False, stream=silent))

    assert "2/2" in terminal.getvalue()
    assert silent.getvalue() == ""
