"""When a job stops: on request, at a deadline, because of its template, after its time to live."""
