"""Where a rank stands among the others, and what they exchange."""
