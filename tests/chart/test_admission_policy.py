"""The optional ValidatingAdmissionPolicy: what it limits, where, and that it never limits nothing.

tests/apiserver/test_chart_install.py has an API server evaluate its expressions.
"""

from typing import Any

import pytest


def policy(render: Any, **values: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    objects = render({"admissionPolicy": {"enabled": True, **values.pop("policy", {})}, **values})
    (found,) = [o for o in objects if o["kind"] == "ValidatingAdmissionPolicy"]
    (binding,) = [o for o in objects if o["kind"] == "ValidatingAdmissionPolicyBinding"]
    return found, binding


def messages(found: dict[str, Any]) -> list[str]:
    return [validation["message"] for validation in found["spec"]["validations"]]


def test_there_is_no_policy_unless_asked_for(render: Any) -> None:
    assert not [o for o in render() if o["kind"].startswith("ValidatingAdmission")]


def test_the_policy_judges_distilljobs_whose_spec_is_new(render: Any) -> None:
    found, binding = policy(render)
    assert found["spec"]["failurePolicy"] == "Fail"
    (rule,) = found["spec"]["matchConstraints"]["resourceRules"]
    assert (rule["apiGroups"], rule["resources"]) == (["distilljob.dev"], ["distilljobs"])
    assert rule["operations"] == ["CREATE", "UPDATE"]
    (condition,) = found["spec"]["matchConditions"]
    assert condition["expression"] == "request.operation == 'CREATE' || object.spec != oldObject.spec"
    assert binding["spec"] == {"policyName": found["metadata"]["name"], "validationActions": ["Deny"]}


def test_the_policy_forbids_what_takes_the_node_by_default(render: Any) -> None:
    found, _ = policy(render)
    assert [message.split()[0] for message in messages(found)] == ["volumes", "containers"]


def test_images_and_priority_classes_are_named_in_rule_and_message(render: Any) -> None:
    found, _ = policy(render, policy={"images": ["reg.example.com/ml/", "reg/x@"], "priorityClasses": ["low"]})
    images, _, _, priorities = found["spec"]["validations"]
    assert "['reg.example.com/ml/','reg/x@'].exists(allowed, image.startsWith(allowed))" in images["expression"]
    assert images["message"].endswith("must begin with one of: reg.example.com/ml/, reg/x@")
    assert priorities["expression"].endswith("in ['low','']")
    assert priorities["message"].endswith("must be one of: low")


def test_every_image_of_a_pod_is_judged(render: Any) -> None:
    found, _ = policy(render)
    variables = {variable["name"]: variable["expression"] for variable in found["spec"]["variables"]}
    assert "variables.pod.initContainers" in variables["containers"]
    for source in ("object.spec.image", "c.image", "v.image.reference"):
        assert source in variables["images"]


def test_the_policy_holds_where_the_operator_works(render: Any) -> None:
    _, binding = policy(render, watchNamespaces=["a", "b"])
    (chosen,) = binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
    assert chosen == {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a", "b"]}


def test_a_policy_that_limits_nothing_is_refused(refused: Any) -> None:
    values = {"enabled": True, "allowHostPath": True, "allowPrivileged": True}
    assert "would limit nothing: set images" in refused({"admissionPolicy": values})


@pytest.mark.parametrize("image", ["registry.example.com", "reg/x' || true || '", ""])
def test_a_prefix_that_admits_more_than_it_says_is_refused(refused: Any, image: str) -> None:
    assert "/admissionPolicy/images/0" in refused({"admissionPolicy": {"enabled": True, "images": [image]}})
