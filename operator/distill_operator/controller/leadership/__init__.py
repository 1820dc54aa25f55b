"""Which of several operators works: the decision, and the Lease that it is about."""
