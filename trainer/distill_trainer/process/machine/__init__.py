"""What this container may use: CPUs, memory, and calls of the kernel."""
