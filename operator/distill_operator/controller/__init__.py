"""What runs: watches, the work queue, and one pass over a job."""
