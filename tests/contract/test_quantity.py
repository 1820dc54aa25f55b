"""Quantities of resources are read as Kubernetes reads them."""

from decimal import Decimal

import pytest

from distill_api.reading.quantity import amount, written


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", "0"),
        ("2", "2"),
        ("0.5", "0.5"),
        (".5", "0.5"),
        ("5.", "5"),
        ("500m", "0.5"),
        ("3n", "0.000000003"),
        ("2k", "2000"),
        ("1M", "1000000"),
        ("1E", "1000000000000000000"),
        ("1e3", "1000"),
        ("15E-1", "1.5"),
        ("1Ki", "1024"),
        ("1.5Gi", "1610612736"),
        ("1Ei", "1152921504606846976"),
    ],
)
def test_a_quantity_is_a_number(text: str, number: str) -> None:
    assert amount(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "much", "1 Gi", "1gi", "1e", "1K", "-1", "+1", "1Gi\n", "1e400", "١"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        amount(text)


def test_whole_numbers_need_no_quotes() -> None:
    assert written(8) == "8"


@pytest.mark.parametrize("value", [True, 0.5, None, {}])
def test_other_values_of_yaml_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="in quotes"):
        written(value)
