"""Searches all orders of events for one that breaks the operator's promises, on a cluster of values."""
