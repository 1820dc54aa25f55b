"""When a job stops: on request, at a deadline, after its time to live."""
