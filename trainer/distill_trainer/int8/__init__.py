"""A frozen model in 8 bits, for CPUs that multiply bytes natively: four times as many a cycle as in fp32.

Convolutions, with their bias and activation, run in oneDNN on unsigned bytes with one range per tensor and on signed
bytes with one scale per output channel. What lies between them moves bytes as they are: slices, concatenations,
poolings, upsamplings, sums. Everything else computes in fp32.
"""

from distill_trainer.int8.convert import to_int8
from distill_trainer.int8.ranged import Ranged

__all__ = ["Ranged", "to_int8"]
