"""Anonymous memory that the rank shares with the writer process; a kill leaves nothing behind."""

import mmap
import os
import tempfile

import torch


class SharedBuffer:
    """A growable region of shared memory behind one file descriptor, pinned if CUDA tensors are copied to it."""

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self.descriptor = os.memfd_create("distill-snapshot", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                self.descriptor = os.dup(file.fileno())
        self._bytes = torch.empty(0, dtype=torch.uint8)
        self._pinned = False

    def reserve(self, size: int, *, pinned: bool) -> torch.Tensor:
        """The region as a uint8 tensor of at least `size` bytes; the same memory unless it had to grow."""
        if size > len(self._bytes):
            self._unpin()
            capacity = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
            os.ftruncate(self.descriptor, capacity)
            self._bytes = torch.frombuffer(mmap.mmap(self.descriptor, capacity), dtype=torch.uint8)
        if pinned and not self._pinned:
            # Copies from the device to pinned memory are asynchronous and several times faster.
            status = torch.cuda.cudart().cudaHostRegister(self._bytes.data_ptr(), len(self._bytes), 0)
            self._pinned = int(status) == 0
        return self._bytes

    def close(self) -> None:
        """Release the memory; it is freed once the writer process has unmapped it too."""
        self._unpin()
        self._bytes = torch.empty(0, dtype=torch.uint8)
        os.close(self.descriptor)

    def _unpin(self) -> None:
        if self._pinned:
            torch.cuda.cudart().cudaHostUnregister(self._bytes.data_ptr())
            self._pinned = False
