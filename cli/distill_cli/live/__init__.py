"""What a command shows while something goes on: a job, a local run, a check."""
