"""What the operator reports about a job: conditions, progress, goodput, events. Pure."""
