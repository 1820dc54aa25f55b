"""The process that commits checkpoints in the background, and its client in the rank."""
