"""Validation on all ranks, and what is done with the result."""
