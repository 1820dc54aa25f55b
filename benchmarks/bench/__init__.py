"""How long things take: a step, the data, a checkpoint, a recovery; and what a teacher in int8 costs."""
