"""Disturbs the operator on a real API server: crashes, wrong answers, servers that are away, random changes of jobs."""
