"""Asks PyTorch for CUDA devices while it is imported, as a library might."""

import torch

torch.cuda.is_available()
torch.cuda.device_count()
