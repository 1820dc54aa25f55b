"""Fixtures of the trainer's tests."""

from tests.support.digits import make_digits

__all__ = ["make_digits"]
