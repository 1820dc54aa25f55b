"""The values that observations, decisions and actions consist of."""
