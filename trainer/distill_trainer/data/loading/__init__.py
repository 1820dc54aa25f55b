"""From samples to batches: which samples a step has, their random numbers, and the workers that load them."""
