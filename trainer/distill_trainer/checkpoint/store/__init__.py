"""Crash-safe changes to the checkpoints volume."""
