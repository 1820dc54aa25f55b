"""The page of a scenario: every seed, differences with their intervals, seconds, memory, and curves."""
