"""Nodes: their programs, their images, and the changes that they make to the host."""
