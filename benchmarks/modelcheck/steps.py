"""Which steps can be taken in a state. Ordinary ones happen at any time; faults are counted."""

from collections.abc import Iterator

from distill_api.constants import TERMINAL_PHASES
from tests.support.operator.hazards import CUT_OFF, Hazards
from tests.support.operator.world import DISRUPTIONS, ENDS

Step = tuple[str, int]
"""Name and rank, as `step_world` takes them."""

ORDINARY = ("operate", "controllers", "kubelets")
DELAYS = ("moment", "short_wait", "long_wait")
ON_PODS = (*ENDS, *DISRUPTIONS, "delete_pod", "kubelet_evicts")
ON_JOBS = ("delete_job", "orphan_job", "delete_job_in_background", "queue_evicts")
FAULTS = (
    *ON_PODS, *ON_JOBS, *CUT_OFF, "darken", "clock_ahead", "clock_behind", "kubelet", "forget", "look", "suspend",
    "spoil", "spoil_template", "quota_full", "set_ttl", "scale_down",
)  # fmt: skip
ENDINGS = (
    "arrive", "act_on_picture", "queue_admits", "lighten", "resume", "repair", "mend_template", "quota_free",
    "scale_up",
)  # fmt: skip
"""Ordinary steps that take a fault back, or finish what it began."""


def ordinary(state: Hazards) -> Iterator[Step]:
    """What may happen in any life."""
    if state.deleted:
        return
    yield from ((name, 0) for name in ORDINARY if name != "operate" or state.picture is None)
    if state.gang():
        yield ("train", 0)
    if state.committed < state.step or not all(state.may_commit(pod) for pod in state.rank0s):
        yield ("commit", 0)
    spec, over = state.dj.spec, state.dj.status.phase in TERMINAL_PHASES
    possible = {
        "arrive": bool(state.underway), "act_on_picture": state.picture is not None, "lighten": bool(state.dark),
        "queue_admits": any(job.suspended for job in state.jobs.values()), "resume": spec.suspend,
        "repair": state.spoiled is not None, "mend_template": spec.template is not None, "quota_free": state.quota,
        "scale_up": spec.nodes < 2 and (state.dj.status.full_nodes or 2) == 2 and not over,
    }  # fmt: skip
    yield from ((name, 0) for name in ENDINGS if possible[name])


def faults(state: Hazards) -> Iterator[Step]:
    """What may go wrong, or be asked for, in this state."""
    if state.deleted:
        return
    running = {pod.rank or 0 for pod in state.pods.values() if pod.running}
    live = {pod.rank or 0 for pod in state.pods.values() if pod.live and pod.node}
    for rank in sorted(live):
        yield from ((name, rank) for name in ON_PODS if rank in running)
        yield from ((name, rank) for name in ("kubelet", "clock_ahead", "clock_behind"))
        if not state.dark:
            yield ("darken", rank)
    if state.jobs:
        yield from ((name, 0) for name in ON_JOBS)
    if state.picture is None:
        yield ("look", 0)
        plan = state.plan()
        yield from ((name, 0) for name, least in zip(CUT_OFF, (1, 2, 3, 1), strict=True) if len(plan.actions) >= least)
    spec, over = state.dj.spec, state.dj.status.phase in TERMINAL_PHASES
    possible = {
        "forget": bool(state.noted), "suspend": not spec.suspend, "spoil": state.spoiled is None and not over,
        "spoil_template": spec.template is None, "quota_full": not state.quota and not over,
        "set_ttl": spec.ttl_seconds_after_finished is None, "scale_down": spec.nodes == 2 and not over,
    }  # fmt: skip
    yield from ((name, 0) for name, can in possible.items() if can)
    yield from ((name, 0) for name in DELAYS)
