"""Measures what a training recipe is worth: mAP by seed, with seconds and memory, beside Ultralytics' own trainer."""
