"""Runs a DistillJob on this machine without Kubernetes, for the CLI and for notebooks."""
