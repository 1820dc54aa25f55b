"""What happens inside pods: files of a job's claim, and connections to ports."""
