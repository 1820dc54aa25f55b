"""`helm test`: is the DistillJob API served, and does the operator answer?"""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PATIENCE_SECONDS = 60


def get(url: str, hint: str, token: str | None = None, authority: Path | None = None) -> str:
    """Body of the answer to a GET; tried again for a while, because a new Service takes seconds to be routed."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    context = ssl.create_default_context(cafile=str(authority)) if authority else None
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5, context=context) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > deadline:
                sys.exit(f"{url}: {error}; {hint}")
        time.sleep(1)


def main() -> None:
    """Exit with a sentence at the first thing that is not as it should be."""
    operator, server = os.environ["OPERATOR"], os.environ["KUBERNETES_SERVICE_HOST"]
    host = f"[{server}]" if ":" in server else server
    api = f"https://{host}:{os.environ['KUBERNETES_SERVICE_PORT']}/apis/distilljob.dev/v1alpha1"
    no_crd = "the DistillJob CRD is missing: was the chart installed with crds.install=false?"
    served = json.loads(get(api, no_crd, (ACCOUNT / "token").read_text(), ACCOUNT / "ca.crt"))
    if "distilljobs" not in {resource["name"] for resource in served["resources"]}:
        sys.exit(f"{api} serves no distilljobs; {no_crd}")
    no_operator = "the operator does not answer: see the log of its Deployment, and NetworkPolicies"
    get(f"http://{operator}:8080/healthz", no_operator)
    if "distill_operator_build_info" not in get(f"http://{operator}:9090/metrics", no_operator):
        sys.exit(f"http://{operator}:9090/metrics has no distill_operator_build_info: is this the operator's image?")
    print("The DistillJob API is served and the operator answers.")


main()
