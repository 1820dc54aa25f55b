"""The process that commits checkpoints, and the rank's side of it."""
