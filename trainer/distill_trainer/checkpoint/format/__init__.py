"""The format of a checkpoint on the volume."""
