"""A DistillJob on this machine, without Kubernetes: the trainer as a process, for the CLI and for notebooks."""
