"""Whether the claims of the job's volumes can be used."""

from datetime import datetime

from distill_api.constants import Label
from distill_api.reasons import Reason
from distill_api.spec.fields import DistillJobSpec
from distill_api.status import Waiting
from distill_operator.types import messages
from distill_operator.types.actions import Notice
from distill_operator.types.observed import ClaimFacts, Observed

MANY_WRITERS = frozenset({"ReadWriteMany"})
MANY_READERS = frozenset({"ReadWriteMany", "ReadOnlyMany"})


def problem(spec: DistillJobSpec, name: str, namespace: str, claims: tuple[ClaimFacts, ...]) -> Notice | None:
    """The first problem with the claims of the job `name`; None when all can be used."""
    found = {claim.name: claim for claim in claims}
    sources = spec.volumes.by_name()
    for volume, wanted_claim in spec.volumes.claims(name).items():
        source = sources[volume]
        present = found.get(wanted_claim)
        if present is not None and present.deleting:
            return Notice(Reason.NAME_TAKEN, messages.CLAIM_DELETING.format(claim=present.name, volume=volume))
        if source.claim_name is None:
            if present is not None and not present.owned:
                return Notice(Reason.NAME_TAKEN, messages.CLAIM_TAKEN.format(claim=present.name, volume=volume))
            continue
        claim = present
        place = {"claim": source.claim_name, "volume": volume}
        if claim is None:
            return Notice(Reason.CLAIM_NOT_FOUND, messages.CLAIM_NOT_FOUND.format(**place, namespace=namespace))
        if claim.phase == "Lost":
            return Notice(Reason.CLAIM_NOT_BOUND, messages.CLAIM_LOST.format(**place))
        suitable = MANY_WRITERS if volume == "checkpoints" else MANY_READERS
        if spec.nodes > 1 and claim.access_modes and suitable.isdisjoint(claim.access_modes):
            modes, wanted = ", ".join(claim.access_modes), " or ".join(sorted(suitable))
            message = messages.CLAIM_ONE_NODE.format(nodes=spec.nodes, modes=modes, wanted=wanted, **place)
            return Notice(Reason.CONFIG_INVALID, message)
    return None


def checkpoints_lost(observed: Observed, committed: int) -> Notice | None:
    """Why nothing can be resumed: the claim from a template, which has the step `committed`, does not exist.

    A new claim would be empty, and training would begin again. The trainer finds a directory that was emptied.
    """
    source = observed.job.spec.volumes.checkpoints
    claim = source.claim(observed.name, "checkpoints")
    kept = any(found.name == claim for found in observed.claims or ())
    if not committed or source.claim_template is None or kept:
        return None
    label = {"label": Label.UID, "uid": observed.uid}
    return Notice(Reason.CHECKPOINTS_LOST, messages.CHECKPOINTS_CLAIM_LOST.format(claim=claim, step=committed, **label))


def seconds_to_wait(stored: Waiting | None, problem: Notice, wait: float, now: datetime) -> float:
    """Seconds until `problem` fails the job. `stored` says since when the job has waited for it."""
    if stored is None or stored.reason != problem.reason:
        return wait
    return max(0.0, wait - (now - stored.since).total_seconds())
