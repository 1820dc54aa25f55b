"""Finds, loads, checks and builds the student and the teacher."""
