"""Linux processes, control groups, mounts and network namespaces."""
