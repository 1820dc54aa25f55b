"""The writer process: commits checkpoints and replaces result files, and finishes even if the rank is killed.

`BackgroundWriter` starts it as `python -m distill_trainer.checkpoint.writer.process`. It reads requests as JSON lines
from stdin and carries them out in order. Their contents are in shared memory, whose descriptors it inherits. It writes
one response line each to stdout, and exits at the end of stdin. It ignores stop signals and does not import PyTorch.
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

from distill_api.errors import Permanent, TrainerError
from distill_trainer.checkpoint.format import layout
from distill_trainer.checkpoint.format.versions import Versions
from distill_trainer.checkpoint.store.commit import Commit, Fenced, commit
from distill_trainer.checkpoint.store.fence import Fence
from distill_trainer.checkpoint.store.results import replace_files


def handle(request: dict[str, Any]) -> dict[str, Any]:
    """Carry out one request and return the response."""
    started, cpu_before = time.monotonic(), time.process_time()
    try:
        done = _replace(request) if "files" in request else _commit(request)
    except Fenced as fenced:
        return {"fencedBy": asdict(fenced.newer)}
    except OSError as error:
        return {"errno": error.errno or 0, "path": str(error.filename or request["directory"])}
    except TrainerError as error:
        permanent = isinstance(error, Permanent)
        return {"reason": error.reason, "message": error.message, "permanent": permanent}
    return {
        **done,
        "seconds": time.monotonic() - started,
        "cpuSeconds": time.process_time() - cpu_before,
    }


def _commit(request: dict[str, Any]) -> dict[str, Any]:
    tensors, structure = request["tensorBytes"], request["structureBytes"]
    shared = _shared(request, tensors + structure)
    files = {layout.TENSORS: shared[:tensors], layout.STRUCTURE: shared[tensors:]}
    fence, versions = Fence(**request["fence"]), Versions(**request["versions"])
    order = Commit(Path(request["directory"]), fence, request["step"], versions, request["keep"], request["run"])
    at = commit(order, files, lambda: datetime.now(UTC))
    return {"step": request["step"], "committedAt": at.isoformat()}


def _replace(request: dict[str, Any]) -> dict[str, Any]:
    shared, places = _shared(request, request["bytes"]), request["files"]
    files = {Path(path): shared[start:end] for path, (start, end) in places.items()}
    replace_files(files, Path(request["directory"]), Fence(**request["fence"]))
    return {"replaced": list(places)}


def _shared(request: dict[str, Any], size: int) -> memoryview:
    # Not closed explicitly, because the traceback of an error still refers to views of it.
    return memoryview(mmap.mmap(request["buffer"], size, access=mmap.ACCESS_READ))


def main() -> None:
    """Handle requests until stdin ends."""
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    for line in sys.stdin:
        response = json.dumps(handle(json.loads(line)))
        try:
            print(response, flush=True)
        except BrokenPipeError:
            # The rank is gone; what was committed is valid anyway.
            return


if __name__ == "__main__":
    main()
