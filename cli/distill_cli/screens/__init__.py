"""Screens: view models drawn with rich, or written as text."""
