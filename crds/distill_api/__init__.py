"""The contract that operator, trainer and CLI share: the specification and the status of a DistillJob.

It imports neither Kubernetes nor PyTorch, so every program can use it.
"""

from distill_api.job import DistillJob
from distill_api.pod.run import RunConfig
from distill_api.spec.fields import DistillJobSpec
from distill_api.status import DistillJobStatus

__all__ = ["DistillJob", "DistillJobSpec", "DistillJobStatus", "RunConfig"]
