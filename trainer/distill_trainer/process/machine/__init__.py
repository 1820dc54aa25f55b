"""Limits and settings of the container and the process: CPUs, memory, prctl."""
