"""The training loop, the training step, and the state that a step changes."""
