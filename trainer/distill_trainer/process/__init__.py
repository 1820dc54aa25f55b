"""The processes of a node: launcher and ranks, how they live and what they tell. Knows no training."""
