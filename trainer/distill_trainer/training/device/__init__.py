"""What keeps the host ahead of the device: results that are read late, steps that are gated, batches that are copied
ahead."""
