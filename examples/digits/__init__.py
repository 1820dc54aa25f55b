"""Scenes of real handwritten digits as a data set, and the tour that trains on them."""
