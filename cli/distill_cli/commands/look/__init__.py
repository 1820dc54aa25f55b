"""Commands that look at jobs."""
