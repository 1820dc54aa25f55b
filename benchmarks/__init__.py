"""Benchmarks and chaos tests. Run them from the root of the checkout: `python -m benchmarks.bench.step`."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""Root of the checkout."""
