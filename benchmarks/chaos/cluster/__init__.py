"""`make chaos-cluster`: disrupts a job on a cluster, follows it, and checks the result and the status."""
