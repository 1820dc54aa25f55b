"""Checkpoints that survive a kill at any moment. Use `checkpointer.Checkpointer`.

Importing this package does not import PyTorch, so that the writer process starts fast and stays small.
"""
