"""What other programs write, and what the operator makes of it: what it does not know, it waits for and shows."""

import pytest

from distill_api.constants import Phase
from distill_api.reasons import Reason
from distill_operator.kube import texts
from distill_operator.kube.objects import rejection_of_pods
from distill_operator.plan.plan import make_plan
from distill_operator.types.observed import Rejection
from tests.support.operator.samples import SETTINGS, at, attempt, child, job, observed, status

FORBIDDEN = 'pods "tiny-a1-0-x7k2p" is forbidden'
WEBHOOK = 'admission webhook "validate.kyverno.svc-fail" denied the request: '

WAITED_FOR = {
    "a quota that is used up": (
        Reason.QUOTA_EXCEEDED,
        f"{FORBIDDEN}: exceeded quota: small, requested: pods=1, used: pods=4, limited: pods=4",
    ),
    "a quota whose use is not known yet": (
        Reason.NOT_ADMITTED,
        f"{FORBIDDEN}: status unknown for quota: small, resources: requests.nvidia.com/gpu",
    ),
    "a policy webhook that denies": (Reason.NOT_ADMITTED, f"{WEBHOOK}policy require-labels: label team is required"),
    "a webhook that calls something invalid": (Reason.NOT_ADMITTED, f'{WEBHOOK}Pod "x" is invalid: spec.team'),
    "a ValidatingAdmissionPolicy": (
        Reason.NOT_ADMITTED,
        f"{FORBIDDEN}: ValidatingAdmissionPolicy 'images' with binding 'all' denied request: failed expression: true",
    ),
    "a webhook that is not available": (
        Reason.NOT_ADMITTED,
        'Internal error occurred: failed calling webhook "w": failed to call webhook: connect: connection refused',
    ),
    "a service account that does not exist yet": (
        Reason.NOT_ADMITTED,
        f'{FORBIDDEN}: error looking up service account team/default: serviceaccount "default" not found',
    ),
    "a priority class that does not exist yet": (
        Reason.NOT_ADMITTED,
        f"{FORBIDDEN}: no PriorityClass with name urgent was found",
    ),
    "an admission plugin that starts": (Reason.NOT_ADMITTED, f"{FORBIDDEN}: not yet ready to handle request"),
    "a limit range": (
        Reason.NOT_ADMITTED,
        f"{FORBIDDEN}: maximum memory usage per Container is 1Gi, but limit is 8Gi",
    ),
    "something that nobody has seen before": (Reason.NOT_ADMITTED, "the server timed out"),
}
PERMANENT = {
    "an invalid pod": 'Pod "tiny-a1-0-x7k2p" is invalid: spec.containers[0].image: Required value',
    "a pod that the Pod Security Standard forbids": f'{FORBIDDEN}: violates PodSecurity "restricted:v1": privileged',
}


@pytest.mark.parametrize(("reason", "text"), WAITED_FOR.values(), ids=WAITED_FOR.keys())
def test_a_refusal_that_may_pass_is_waited_for_and_shown(reason: Reason, text: str) -> None:
    rejection = rejection_of_pods("tiny-a1", [f"Error creating: {text}"])
    assert rejection == Rejection("pods of Job tiny-a1", text, reason)
    starting = job(status(attempt(), phase=Phase.STARTING))
    told = make_plan(observed(starting, jobs=(child(),), rejection=rejection), at(5), SETTINGS).status
    assert told is not None
    assert (told.phase, told.attempts[0].reason) == (Phase.PENDING, None)
    assert told.waiting is not None
    assert told.waiting.reason == reason
    assert text in told.waiting.message


@pytest.mark.parametrize("text", PERMANENT.values(), ids=PERMANENT.keys())
def test_a_refusal_that_every_pod_would_meet_ends_the_job(text: str) -> None:
    rejection = rejection_of_pods("tiny-a1", [f"Error creating: {text}"])
    assert rejection == Rejection("pods of Job tiny-a1", text, Reason.POD_REJECTED)
    starting = job(status(attempt(), phase=Phase.STARTING))
    ended = make_plan(observed(starting, jobs=(child(),), rejection=rejection), at(5), SETTINGS).status
    assert ended is not None
    assert ended.attempts[0].reason == Reason.POD_REJECTED


def test_of_several_refusals_the_newest_is_shown_unless_one_is_permanent() -> None:
    quota, policy = "exceeded quota: small", f"{WEBHOOK}no"
    assert rejection_of_pods("tiny-a1", []) is None
    newest = rejection_of_pods("tiny-a1", [quota, policy])
    assert newest is not None
    assert newest.message == policy
    worst = rejection_of_pods("tiny-a1", [PERMANENT["an invalid pod"], quota])
    assert worst is not None
    assert worst.reason == Reason.POD_REJECTED


@pytest.mark.parametrize(
    ("code", "text", "reason"),
    [
        (403, 'jobs.batch "tiny-a1" is forbidden: status unknown for quota: small', Reason.NOT_ADMITTED),
        (400, f"{WEBHOOK}no", Reason.NOT_ADMITTED),
        (422, "jobs.batch is forbidden: ValidatingAdmissionPolicy 'p' denied request: no", Reason.NOT_ADMITTED),
        (500, f"{WEBHOOK}no", Reason.NOT_ADMITTED),
        (500, 'Internal error occurred: failed calling webhook "w": EOF', Reason.NOT_ADMITTED),
        (403, 'namespaces "team" is being terminated', Reason.NOT_ADMITTED),
        (422, 'Job.batch "tiny-a1" is invalid: spec.template.spec.containers[0].image: Required value', None),
        (400, 'Job in version "v1" cannot be handled as a Job: quantities must match the regular expression', None),
    ],
)
def test_only_what_is_invalid_for_the_api_server_itself_is_permanent(
    code: int, text: str, reason: Reason | None
) -> None:
    assert texts.is_refusal(code, text)
    assert texts.reason_of_refusal(text, code) == (reason or Reason.POD_REJECTED)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (500, "etcdserver: request timed out"),
        (429, "too many requests"),
        (409, 'Operation cannot be fulfilled on resourcequotas "small": the object has been modified'),
        (403, 'jobs.batch is forbidden: User "system:serviceaccount:a:b" cannot create resource "jobs" in API group'),
    ],
)
def test_what_says_nothing_about_the_object_is_an_error_that_is_retried(code: int, text: str) -> None:
    assert not texts.is_refusal(code, text)
