"""Loads .pt files as data: tensors, an architecture and names, from which a fresh model is built."""

from distill_trainer.models.loading.load import (
    file_sha256,
    find_model_file,
    load_checkpoint,
    load_tensors,
    load_verified,
)

__all__ = ["file_sha256", "find_model_file", "load_checkpoint", "load_tensors", "load_verified"]
