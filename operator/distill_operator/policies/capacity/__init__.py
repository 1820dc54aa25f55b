"""Which nodes and claims an attempt waits for, and how many it gets."""
