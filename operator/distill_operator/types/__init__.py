"""The values that observation, decision and action are made of."""
