"""Ranks, collectives and virtual shards."""
