"""Validation on all ranks, best weights, early stopping, and scores of teacher and baseline."""
