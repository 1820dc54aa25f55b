"""Reads what users wrote, and explains what is wrong with it."""
