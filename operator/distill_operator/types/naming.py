"""Names of a job's children. Each is a function of the job alone, so a create that already happened is found again.

    <job>-a<N>                    Job and headless Service of attempt N
    <job>-a<N>-<i>                host name of node rank i; the Job controller adds a suffix to the pod's name
    <job>-grow                    Job of the placeholder pods that ask for further nodes
    <job>                         NetworkPolicy of the gang
    <job>-<volume>                claim made from volumes.<volume>.claimTemplate

A DistillJob's name has at most 52 characters, so host names stay within DNS's 63 up to attempt 99999 with 1000 nodes.
"""

from distill_api.constants import METRICS_PORT, RENDEZVOUS_PORT
from distill_api.spec.fields import DistillJobSpec, Volume


def attempt_name(job: str, attempt: int) -> str:
    """Job and Service of an attempt."""
    return f"{job}-a{attempt}"


def placeholder_name(job: str) -> str:
    """Job of the placeholder pods."""
    return f"{job}-grow"


def rendezvous(job: str, namespace: str, attempt: int) -> str:
    """host:port where node rank 0's torchrun store listens."""
    name = attempt_name(job, attempt)
    return f"{name}-0.{name}.{namespace}.svc:{RENDEZVOUS_PORT}"


def status_url(ip: str) -> str:
    """Where rank 0 answers for its progress."""
    host = f"[{ip}]" if ":" in ip else ip
    return f"http://{host}:{METRICS_PORT}/status"


def claim_name(job: str, volume: str, spec: Volume) -> str:
    """The claim behind a volume: the given one, or the one that is made from the template."""
    return spec.claim_name or f"{job}-{volume}"


def volumes(spec: DistillJobSpec) -> dict[str, Volume]:
    """The job's volumes by name, in mount order; models is left out when there is none."""
    all_three = {"checkpoints": spec.volumes.checkpoints, "data": spec.volumes.data, "models": spec.volumes.models}
    return {name: volume for name, volume in all_three.items() if volume is not None}
