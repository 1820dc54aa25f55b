"""The running process: watches, the work queue, and the pass over one job."""
