"""The outputs of a run besides its weights: plots, exports, TensorBoard events and a report."""
