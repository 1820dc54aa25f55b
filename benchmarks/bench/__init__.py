"""Benchmarks: training step, data loading, checkpoints, recovery."""
