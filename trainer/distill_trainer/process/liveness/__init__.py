"""Detecting stuck ranks, and stop requests."""
