"""Chaos tests: jobs that are disrupted at random must end bitwise equal to an undisturbed one."""
