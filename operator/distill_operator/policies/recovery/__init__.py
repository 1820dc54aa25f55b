"""How an attempt ended, and whether and when there is another."""
