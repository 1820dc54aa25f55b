"""`make gpu-check`: what can only be found out on a machine with GPUs, in ten minutes."""
