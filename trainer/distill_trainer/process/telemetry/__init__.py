"""Status, metrics, console output and time accounting of a running rank."""
