"""Names of a job's children. They depend on the job alone, so an object that was already created is found again.

    <job>-a<N>                    Job and headless Service of attempt N
    <job>-a<N>-<i>                host name of node rank i; the pod's name has a suffix from the Job controller
    <job>-grow                    Job of the placeholder pods that ask for more nodes
    <job>                         NetworkPolicy of the training pods
    <job>-<volume>                claim from volumes.<volume>.claimTemplate

A DistillJob's name has at most 52 characters, so host names have at most 63 up to attempt 99999 with 1000 nodes.
"""

from distill_api.constants import METRICS_PORT, RENDEZVOUS_PORT


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
    """URL of rank 0's status."""
    host = f"[{ip}]" if ":" in ip else ip
    return f"http://{host}:{METRICS_PORT}/status"
