"""What of a run is saved, when, and what a corrected spec makes of it."""
