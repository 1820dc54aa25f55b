"""Rules of a DistillJob, each for the API server and for Python."""
