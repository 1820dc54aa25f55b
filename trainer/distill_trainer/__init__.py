"""The trainer: PyTorch and Ultralytics, torchrun on every node. Knows nothing of Kubernetes."""

from distill_trainer import offline

offline.prepare()
