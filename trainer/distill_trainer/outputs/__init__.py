"""What a run leaves besides its weights: pictures, exports, TensorBoard scalars, a report. One file for each kind."""
