"""What proves the promises: benchmarks and chaos. Run from the checkout's root: `python -m benchmarks.bench.step`."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The checkout."""
