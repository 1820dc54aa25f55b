"""What is told of a job: conditions, progress, goodput, events. Pure."""
