"""Checkpoints that survive a kill at any moment: `checkpointer.Checkpointer` is the door.

Importing this package alone loads no PyTorch, so the writer process stays small and starts fast.
"""
