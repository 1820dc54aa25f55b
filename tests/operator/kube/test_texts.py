"""What Kubernetes and webhooks write about a refusal, and what the operator makes of it.

The texts are those of the sources of Kubernetes 1.34, which 1.30 to 1.37 share: admission plugins, apimachinery's
errors, the Job controller, client-go's event recorder.
"""

import pytest

from distill_api.constants import Phase
from distill_api.reasons import Reason
from distill_operator.kube import texts
from distill_operator.kube.events import rejection_of_pods
from distill_operator.plan.plan import make_plan
from distill_operator.types.observed import Rejection
from tests.support.operator.samples import SETTINGS, at, attempt, child, job, observed, status

WAITS, QUOTA, ENDS = Reason.NOT_ADMITTED, Reason.QUOTA_EXCEEDED, Reason.POD_REJECTED

POD = 'pods "tiny-a1-0-x7k2p" is forbidden'
JOB = 'jobs.batch "tiny-a1" is forbidden'
WEBHOOK = 'admission webhook "validate.kyverno.svc-fail" denied the request'
VAP = "ValidatingAdmissionPolicy 'images' with binding 'all' denied request: failed expression: false"
TERMINATING = "unable to create new content in namespace team because it is being terminated"
USER = 'User "system:serviceaccount:distill:operator"'
RBAC = f'{USER} cannot create resource "jobs" in API group "batch" in the namespace "team"'
INVALID_IMAGE = "spec.template.spec.containers[0].image: Required value"

POD_REFUSALS = {
    "quota used up": (
        f"{POD}: exceeded quota: small, requested: pods=1, used: pods=4, limited: pods=4",
        QUOTA,
    ),
    "quota not yet counted": (
        f"{POD}: status unknown for quota: small, resources: pods, requests.nvidia.com/gpu",
        WAITS,
    ),
    "quota asks for limits": (f"{POD}: failed quota: small: must specify memory for: trainer", WAITS),
    "webhook denies": (f"{WEBHOOK}: policy require-labels: label team is required", WAITS),
    "webhook denies without a word": (f"{WEBHOOK} without explanation", WAITS),
    "webhook calls it invalid": (f'{WEBHOOK}: Pod "x" is invalid: spec.team', WAITS),
    "webhook names the Pod Security Standard": (
        f'{WEBHOOK}: pods "x" is forbidden: violates PodSecurity "restricted"',
        WAITS,
    ),
    "webhook has a quota of its own": (f"{WEBHOOK}: exceeded quota: team", WAITS),
    "webhook is away": (
        'Internal error occurred: failed calling webhook "w": failed to call webhook: Post "": connection refused',
        WAITS,
    ),
    "ValidatingAdmissionPolicy": (f"{POD}: {VAP}", WAITS),
    "LimitRange": (f"{POD}: maximum memory usage per Container is 1Gi, but limit is 8Gi", WAITS),
    "service account does not exist yet": (
        f'{POD}: error looking up service account team/default: serviceaccount "default" not found',
        WAITS,
    ),
    "priority class does not exist yet": (f"{POD}: no PriorityClass with name urgent was found", WAITS),
    "admission plugin starts": (f"{POD}: not yet ready to handle request", WAITS),
    "API server is slow": ("Timeout: request did not complete within requested timeout", WAITS),
    "unknown": ("something that nobody has seen before", WAITS),
    "invalid": ('Pod "tiny-a1-0-x7k2p" is invalid: spec.containers[0].image: Required value', ENDS),
    "Pod Security Standard": (
        f'{POD}: violates PodSecurity "restricted:latest": privileged (container "trainer" must not set '
        "securityContext.privileged=true)",
        ENDS,
    ),
}
"""The Job controller's errors about pods, which it puts into FailedCreate events, and the verdict."""


@pytest.mark.parametrize("wrapped", ["", "Error creating: ", "(combined from similar events): Error creating: "])
@pytest.mark.parametrize(("text", "reason"), POD_REFUSALS.values(), ids=POD_REFUSALS.keys())
def test_a_refusal_of_pods_is_read_from_the_job_controllers_event(text: str, reason: Reason, wrapped: str) -> None:
    rejection = rejection_of_pods("tiny-a1", [wrapped + text])
    assert rejection == Rejection("pods of Job tiny-a1", text, reason)


@pytest.mark.parametrize(("text", "reason"), POD_REFUSALS.values(), ids=POD_REFUSALS.keys())
def test_a_refusal_of_pods_is_waited_for_and_shown_unless_it_is_permanent(text: str, reason: Reason) -> None:
    rejection = rejection_of_pods("tiny-a1", [f"Error creating: {text}"])
    starting = job(status(attempt(), phase=Phase.STARTING))
    told = make_plan(observed(starting, jobs=(child(),), rejection=rejection), at(5), SETTINGS).status
    assert told is not None
    if reason == ENDS:
        assert told.attempts[0].reason == ENDS
        return
    assert (told.phase, told.attempts[0].reason) == (Phase.PENDING, None)
    assert told.waiting is not None
    assert told.waiting.reason == reason
    assert text in told.waiting.message


def test_of_several_refusals_the_newest_counts_the_others_have_passed() -> None:
    quota, invalid = POD_REFUSALS["quota used up"], POD_REFUSALS["invalid"]
    assert rejection_of_pods("tiny-a1", []) is None
    for older, newer in ((invalid, quota), (quota, invalid)):
        rejection = rejection_of_pods("tiny-a1", [older[0], newer[0]])
        assert rejection is not None
        assert (rejection.message, rejection.reason) == newer


ERROR = None
"""No refusal: the pass fails and is repeated."""

CREATE_ERRORS = {
    "quota used up": (
        403,
        "Forbidden",
        f"{JOB}: exceeded quota: small, requested: pods=1",
        QUOTA,
    ),
    "quota not yet counted": (
        403,
        "Forbidden",
        f"{JOB}: status unknown for quota: small, resources: count/jobs.batch",
        WAITS,
    ),
    "webhook denies": (403, "Forbidden", f"{WEBHOOK}: no", WAITS),
    "webhook denies as invalid": (422, "Invalid", f"{WEBHOOK}: no", WAITS),
    "webhook denies as a bad request": (400, "BadRequest", f"{WEBHOOK} without explanation", WAITS),
    "webhook denies with an odd code": (500, "InternalError", f"{WEBHOOK}: no", WAITS),
    "webhook denies as a conflict": (409, "AlreadyExists", f"{WEBHOOK}: no", WAITS),
    "webhook is away": (
        500,
        "InternalError",
        'Internal error occurred: failed calling webhook "w"',
        WAITS,
    ),
    "ValidatingAdmissionPolicy": (422, "Invalid", f"{JOB}: {VAP}", WAITS),
    "the operator lacks a permission": (403, "Forbidden", f"{JOB}: {RBAC}", WAITS),
    "the operator may set no owner": (
        403,
        "Forbidden",
        f"{JOB}: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on",
        WAITS,
    ),
    "namespace is being terminated": (403, "Forbidden", f"{JOB}: {TERMINATING}", WAITS),
    "namespace is gone": (404, "NotFound", 'namespaces "team" not found', WAITS),
    "a proxy refuses": (403, "", "Access denied", WAITS),
    "a proxy finds it too large": (413, "", "413 Request Entity Too Large nginx", WAITS),
    "invalid": (422, "Invalid", f'Job.batch "tiny-a1" is invalid: {INVALID_IMAGE}', ENDS),
    "no Job at all": (
        400,
        "BadRequest",
        'Job in version "v1" cannot be handled as a Job: quantities must match the regular expression',
        ENDS,
    ),
    "too large": (413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728", ENDS),
    "too large for etcd": (500, "", "etcdserver: request is too large", ENDS),
    "etcd is slow": (500, "", "etcdserver: request timed out", ERROR),
    "quota evaluation is slow": (
        500,
        "InternalError",
        "Internal error occurred: resource quota evaluation timed out",
        ERROR,
    ),
    "quota was changed meanwhile": (
        409,
        "Conflict",
        'Operation cannot be fulfilled on resourcequotas "small": the object has been modified',
        ERROR,
    ),
    "throttled": (429, "", "Too many requests, please try again later.", ERROR),
    "token has expired": (401, "Unauthorized", "Unauthorized", ERROR),
    "no answer": (0, "Timeout", "POST /apis/batch/v1/namespaces/team/jobs: no answer within 20 s", ERROR),
}
"""Code, reason and message of the API server's errors on creating the attempt's Job, and the verdict."""


@pytest.mark.parametrize(("code", "reason", "text", "verdict"), CREATE_ERRORS.values(), ids=CREATE_ERRORS.keys())
def test_only_an_allow_list_of_codes_and_causes_is_permanent(
    code: int, reason: str, text: str, verdict: Reason | None
) -> None:
    refused = texts.is_refusal(code, text)
    assert (texts.reason_of_refusal(text, code, reason) if refused else ERROR) == verdict
