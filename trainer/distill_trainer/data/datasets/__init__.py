"""The data sets: Ultralytics' samples from checked labels, with its augmentation, made faster."""
