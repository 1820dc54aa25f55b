"""The parts of `make chaos-cluster`: what is done to a job, how it is watched, what came of it."""
