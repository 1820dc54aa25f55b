"""A data set of real handwritten digits, and the demo that trains on it."""
