"""What spec.template may not add to pods: refused in Python, and declared in the CRD for CEL to see."""

from collections.abc import Iterator
from typing import Any

import pytest

from distill_api.generate.crd import crd
from distill_api.job import InvalidJob, parse_job
from distill_api.spec.rules import pod_template
from distill_api.spec.rules.rule import Rule
from tests.contract.test_spec import job_with
from tests.support.templates import ALLOWED, REFUSED

RULES: tuple[Rule, ...] = (
    *pod_template.POD,
    *pod_template.CONTAINER,
    *pod_template.INIT_CONTAINER,
    *pod_template.VARIABLE,
    *pod_template.VOLUME,
    *pod_template.PROJECTION,
)


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_template_is_named_with_the_remedy(case: str) -> None:
    template, message = REFUSED[case]
    (refusal,) = pod_template.refusals(template)
    assert refusal.startswith("spec.template.spec")
    assert message in refusal
    with pytest.raises(InvalidJob, match=r"^spec\.template\.spec[^\n]+$"):
        parse_job(job_with(template=template))


@pytest.mark.parametrize("case", ALLOWED)
def test_what_the_operator_merges_is_not_refused(case: str) -> None:
    assert parse_job(job_with(template=ALLOWED[case])).spec.template == ALLOWED[case]


def test_every_rule_has_a_template_that_breaks_it() -> None:
    said = {
        refusal.split(": ", 1)[1] for template, _ in REFUSED.values() for refusal in pod_template.refusals(template)
    }
    assert said == {rule.message for rule in RULES}


def test_the_place_of_a_refusal_leads_to_its_element() -> None:
    sources = [{"secret": {"name": "a"}}, {"serviceAccountToken": {"path": "x"}}]
    template = {"spec": {"volumes": [{"name": "a"}, {"name": "b", "projected": {"sources": sources}}]}}
    (refusal,) = pod_template.refusals(template)
    assert refusal.startswith("spec.template.spec.volumes.1.projected.sources.1: ")


def test_all_refusals_and_other_mistakes_are_listed_at_once() -> None:
    template = {"spec": {"hostNetwork": True, "hostPID": True, "serviceAccount": "admin"}}
    with pytest.raises(InvalidJob) as caught:
        parse_job(job_with(template=template, nodes=0))
    assert len(str(caught.value).splitlines()) == 4


@pytest.mark.parametrize("template", [None, {}, {"spec": None}, {"spec": {"containers": "x", "volumes": [1]}}])
def test_a_template_of_another_shape_breaks_no_rule(template: Any) -> None:
    assert pod_template.refusals(template) == []


def nodes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for sub in (*schema.get("properties", {}).values(), *filter(None, [schema.get("items")])):
        yield from nodes(sub)


def test_the_crd_has_every_rule_where_its_fields_are_declared() -> None:
    """CEL sees declared fields only, and the API server refuses rules on elements of lists without a maximum length."""
    spec = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    template = spec["properties"]["template"]
    found = {rule["message"]: node for node in nodes(template) for rule in node.get("x-kubernetes-validations", ())}
    assert found.keys() == {rule.message for rule in RULES}
    for rule in RULES:
        field = rule.cel.split("self.")[-1].split(")")[0].split(".")[0].split(" ")[0]
        assert field in found[rule.message]["properties"], rule.cel
    ruled = [node for node in nodes(template) if "items" in node and "x-kubernetes-validations" in node["items"]]
    assert all("maxItems" in node for node in ruled)
