"""spec: the desired state, written by the user."""
