"""Data sets for the measurements, each generated once and kept by its digest."""
