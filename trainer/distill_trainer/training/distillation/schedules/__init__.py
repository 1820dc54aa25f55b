"""How the weight of the distillation loss changes, and when it ends. One shape a file."""
