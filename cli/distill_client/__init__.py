"""A Python client for DistillJobs on a cluster.

from distill_client import Client

client = Client(namespace="team-a")
client.create("distilljob.yaml")
job = client.wait("yolo26n-coco", timeout=24 * 3600)
print(client.result(job.name).student_map)
"""

from distill_client.checking import Check
from distill_client.client import Client
from distill_client.errors import (
    ClientError,
    Conflict,
    Forbidden,
    JobFailed,
    NotFound,
    NotInstalled,
    Refused,
    TimedOut,
    Unreachable,
)
from distill_client.job import Job
from distill_client.logs import LogLine

__all__ = [
    "Check",
    "Client",
    "ClientError",
    "Conflict",
    "Forbidden",
    "Job",
    "JobFailed",
    "LogLine",
    "NotFound",
    "NotInstalled",
    "Refused",
    "TimedOut",
    "Unreachable",
]
