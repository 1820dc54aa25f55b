"""Nodes: their programs, the images they hold, and what they change on the host."""
