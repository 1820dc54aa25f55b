"""Knowledge distillation: teacher, projector, losses, and the schedule of the loss weight."""
