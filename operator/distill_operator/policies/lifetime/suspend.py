"""spec.suspend: the user takes the pods away and gives them back; neither costs a budget."""

from distill_api.reasons import Reason
from distill_api.spec.fields import DistillJobSpec
from distill_operator.types import messages
from distill_operator.types.actions import Notice


def requested(spec: DistillJobSpec) -> Notice | None:
    """Why the attempt must stop, when the user wants the job suspended."""
    return Notice(Reason.SUSPENDED_BY_USER, messages.SUSPENDING) if spec.suspend else None
