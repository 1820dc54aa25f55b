"""What is shown of one job. Pure."""
