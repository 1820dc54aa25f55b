"""What a checkpoint on the volume looks like."""
