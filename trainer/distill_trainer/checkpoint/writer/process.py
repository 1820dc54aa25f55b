"""The writer process: commits the contents of the shared buffer, and finishes even if the rank is killed.

`BackgroundWriter` starts it as `python -m distill_trainer.checkpoint.writer.process <descriptor>`. It reads requests as
JSON lines from stdin, writes one response line each to stdout, and exits at the end of stdin. It ignores stop signals
and does not import PyTorch.
"""

import json
import mmap
import signal
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distill_api.errors import TrainerError
from distill_trainer.checkpoint.format import layout
from distill_trainer.checkpoint.format.versions import Versions
from distill_trainer.checkpoint.store.commit import Commit, Fenced, commit
from distill_trainer.checkpoint.store.fence import Fence


def handle(request: dict[str, Any], buffer: int) -> dict[str, Any]:
    """Carry out one request and return the response."""
    started, cpu_before = time.monotonic(), time.process_time()
    path = Path(request["directory"])
    tensors, structure = request["tensorBytes"], request["structureBytes"]
    # Not closed explicitly, because the traceback of an error still refers to views of it.
    shared = memoryview(mmap.mmap(buffer, tensors + structure, access=mmap.ACCESS_READ))
    files = {layout.TENSORS: shared[:tensors], layout.STRUCTURE: shared[tensors:]}
    fence, versions = Fence(**request["fence"]), Versions(**request["versions"])
    order = Commit(path, fence, request["step"], versions, request["keep"], request["run"])
    try:
        at = commit(order, files, lambda: datetime.now(UTC))
    except Fenced as fenced:
        return {"step": request["step"], "fencedBy": asdict(fenced.newer)}
    except OSError as error:
        return {"step": request["step"], "errno": error.errno or 0, "path": str(error.filename or path)}
    except TrainerError as error:
        return {"step": request["step"], "reason": error.reason, "message": error.message}
    return {
        "step": request["step"],
        "committedAt": at.isoformat(),
        "seconds": time.monotonic() - started,
        "cpuSeconds": time.process_time() - cpu_before,
    }


def main() -> None:
    """Handle requests until stdin ends."""
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    buffer = int(sys.argv[1])
    for line in sys.stdin:
        response = json.dumps(handle(json.loads(line), buffer))
        try:
            print(response, flush=True)
        except BrokenPipeError:
            # The rank is gone; the commit is valid anyway.
            return


if __name__ == "__main__":
    main()
