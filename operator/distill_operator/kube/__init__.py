"""Reading and writing Kubernetes objects. Decides nothing."""
