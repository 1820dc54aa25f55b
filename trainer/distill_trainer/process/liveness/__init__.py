"""Who notices that a rank stands still, and who asks it to stop."""
