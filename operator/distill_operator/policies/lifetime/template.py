"""spec.template: no pod is created from a template that the contract refuses. The job waits until it is corrected.

The API server refuses such a template, too. But a job that was stored under an earlier version of the CRD may have one.
"""

from distill_api.reasons import Reason
from distill_api.spec.fields import DistillJobSpec
from distill_api.spec.rules.pod_template import refusals
from distill_operator.types import messages
from distill_operator.types.actions import Notice


def refused(spec: DistillJobSpec) -> Notice | None:
    """Why no pod may be created; None if the template may be used."""
    found = refusals(spec.template)
    return (
        Notice(Reason.TEMPLATE_REFUSED, messages.TEMPLATE_REFUSED.format(refusals="; ".join(found))) if found else None
    )
