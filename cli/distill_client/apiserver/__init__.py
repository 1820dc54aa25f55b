"""Requests to the API server: login, kinds and their paths, errors, patience with one that is away."""
