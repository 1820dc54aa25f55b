"""What operator and training pods tell each other."""
