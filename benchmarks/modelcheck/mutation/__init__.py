"""Breaks the rules of the operator one by one, and sees whether the tests or a search notice."""
