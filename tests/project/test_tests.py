"""What CONTRIBUTING.md promises of the tests: short names, and a table of the helpers that misses none."""

import ast
import re

from tests.support.machine.python import ROOT

LETTERS = 70


def test_names_of_tests_are_short() -> None:
    names = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    assert len(names) > 500
    assert {name for name in names if name.startswith("test_") and len(name) > LETTERS} == set()


def test_the_table_of_helpers_has_every_helper() -> None:
    support = ROOT / "tests" / "support"
    rows = re.findall(r"^\| `support/([\w/]+\.py)` \|", (support / "README.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(str(path.relative_to(support)) for path in support.rglob("*.py"))
