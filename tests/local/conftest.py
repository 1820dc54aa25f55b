"""Fixtures of the tests of what runs a trainer on this machine."""

from tests.support.digits import make_digits

__all__ = ["make_digits"]
