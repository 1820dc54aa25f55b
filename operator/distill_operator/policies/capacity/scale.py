"""spec.nodes, changed while the job runs: a job that is elastic takes another size with its next attempt.

More nodes are asked for as those that an attempt lacks for want of room are, see growth.py.
"""

from distill_api.reasons import Reason
from distill_api.spec.fields import DistillJobSpec
from distill_api.status import Attempt
from distill_operator.types import messages
from distill_operator.types.actions import Notice


def scaled_down(attempt: Attempt, spec: DistillJobSpec) -> Notice | None:
    """Why the attempt ends: the job asks for fewer nodes than it has."""
    if attempt.nodes <= spec.nodes:
        return None
    return Notice(Reason.SCALED_DOWN, messages.SCALED_DOWN.format(nodes=spec.nodes, had=attempt.nodes))
