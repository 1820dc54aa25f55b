"""The contract that operator, trainer and CLI share: what a DistillJob says and what its status promises.

Imports neither Kubernetes nor PyTorch, so every program can afford it.
"""

from distill_api.job import DistillJob
from distill_api.pod.run import RunConfig
from distill_api.spec.fields import DistillJobSpec
from distill_api.status import DistillJobStatus

__all__ = ["DistillJob", "DistillJobSpec", "DistillJobStatus", "RunConfig"]
