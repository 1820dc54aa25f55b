"""The training loop and the step, and everything a step changes."""
