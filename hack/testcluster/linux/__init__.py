"""What the cluster uses of Linux: processes, control groups, mounts and network namespaces."""
