"""The processes of a node: launcher, ranks, liveness and telemetry. Does not import the training code."""
