"""What the process shows of itself: probes, metrics, logs."""
