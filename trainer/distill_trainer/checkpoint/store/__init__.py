"""Changing the checkpoints volume so that a crash at any moment loses nothing."""
