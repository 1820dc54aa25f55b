"""Exports the student to other formats."""
