"""What a job's rank 0 says about its training: asked beside the passes, and not trusted."""
