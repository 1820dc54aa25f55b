"""What a rank tells while it runs: status, metrics, console, and where its time goes."""
