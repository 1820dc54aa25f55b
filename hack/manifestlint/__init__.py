"""Checks with kube-score and checkov what the chart installs and what the operator makes. `make lint` runs it."""
