"""The rules, one a file. Pure."""
