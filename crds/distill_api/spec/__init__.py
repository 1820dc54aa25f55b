"""spec: what a user asks for."""
