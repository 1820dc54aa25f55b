"""The writer process: commits what it finds in the shared buffer, and outlives the rank that asked for it.

Started by `BackgroundWriter` as `python -m distill_trainer.checkpoint.writer.process <descriptor>`. Orders come as
JSON lines on stdin, one answer line each goes to stdout; the end of stdin ends the process. It knows no PyTorch: it
moves bytes. Signals meant for the training do not reach it in mid-commit, and when the rank is killed it finishes
the order that it has.
"""

import json
import mmap
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distill_api.errors import TrainerError
from distill_trainer.checkpoint.format import layout
from distill_trainer.checkpoint.format.versions import Versions
from distill_trainer.checkpoint.store.commit import Commit, Fenced, commit
from distill_trainer.checkpoint.store.fence import Fence


def answer(order: dict[str, Any], buffer: int) -> dict[str, Any]:
    """Carry out one order; say what came of it."""
    started, cpu_before = time.monotonic(), time.process_time()
    path = Path(order["directory"])
    tensors, structure = order["tensorBytes"], order["structureBytes"]
    # Not closed by name: an error's traceback still refers to views of it. It goes when this function returns.
    shared = memoryview(mmap.mmap(buffer, tensors + structure, access=mmap.ACCESS_READ))
    files = {layout.TENSORS: shared[:tensors], layout.STRUCTURE: shared[tensors:]}
    try:
        at = commit(
            Commit(path, Fence(**order["fence"]), order["step"], Versions(**order["versions"]), order["keep"]),
            files,
            lambda: datetime.now(UTC),
        )
    except Fenced as fenced:
        return {"step": order["step"], "fencedBy": fenced.newer}
    except OSError as error:
        return {"step": order["step"], "errno": error.errno or 0, "path": str(error.filename or path)}
    except TrainerError as error:
        return {"step": order["step"], "reason": error.reason, "message": error.message}
    return {
        "step": order["step"],
        "committedAt": at.isoformat(),
        "seconds": time.monotonic() - started,
        "cpuSeconds": time.process_time() - cpu_before,
    }


def main() -> None:
    """Serve orders until stdin ends."""
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    buffer = int(sys.argv[1])
    for line in sys.stdin:
        reply = json.dumps(answer(json.loads(line), buffer))
        try:
            print(reply, flush=True)
        except BrokenPipeError:
            # The rank is gone; the commit counts all the same.
            return


if __name__ == "__main__":
    main()
