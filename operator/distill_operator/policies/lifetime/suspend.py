"""spec.suspend: the attempt commits and stops, and a new one starts on resume; no budget is charged."""

from distill_api.reasons import Reason
from distill_api.spec.fields import DistillJobSpec
from distill_operator.types import messages
from distill_operator.types.actions import Notice


def requested(spec: DistillJobSpec) -> Notice | None:
    """Why the attempt must stop: spec.suspend is true."""
    return Notice(Reason.SUSPENDED_BY_USER, messages.SUSPENDING) if spec.suspend else None
