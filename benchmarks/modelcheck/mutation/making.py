"""The mutants: for every rule in the operator's decisions, its source without that rule.

    guard        the condition of an `if` never holds
    operand      an `or` or `and` chain lacks one of its operands
    comparison   `<` becomes `>=`, `==` becomes `!=`, `in` becomes `not in`, and so on
    element      a tuple of actions, reasons or facts lacks one of its elements

Left out is what is no rule: whether a value is None, which only keeps the code from raising, fall-backs such as
`x or ""`, and the words of messages.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ROOT

OPERATOR = ROOT / "operator"
FOLDERS = (OPERATOR / "distill_operator" / "policies", OPERATOR / "distill_operator" / "plan")
OPPOSITES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One expression of a source, and what replaces it."""

    path: Path
    kind: str
    old: ast.expr
    new: ast.expr
    dropped: ast.expr | None = None
    """The operand or element that `old` has and `new` has not."""

    @property
    def module(self) -> str:
        """Name of the changed module."""
        return ".".join(self.path.relative_to(OPERATOR).with_suffix("").parts)

    @property
    def source(self) -> str:
        """The source with the expression replaced."""
        raw, old = self.path.read_bytes(), self.old
        starts = [0]
        for line in raw.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        begin = starts[old.lineno - 1] + old.col_offset
        end = starts[(old.end_lineno or old.lineno) - 1] + (old.end_col_offset or 0)
        return (raw[:begin] + f"({ast.unparse(self.new)})".encode() + raw[end:]).decode()

    def __str__(self) -> str:
        place = f"{self.path.relative_to(OPERATOR / 'distill_operator')}:{self.old.lineno}"
        change = f"{ast.unparse(self.old)} -> {ast.unparse(self.new)}"
        return f"{place} {self.kind}: {change if self.dropped is None else f'without {ast.unparse(self.dropped)}'}"


def mutants() -> list[Mutant]:
    """All mutants, in the order of the sources."""
    paths = sorted(path for folder in FOLDERS for path in folder.rglob("*.py") if path.name != "__init__.py")
    return [mutant for path in paths for mutant in of_file(path)]


def of_file(path: Path) -> list[Mutant]:
    """The mutants of one file."""
    nodes = ast.walk(ast.parse(path.read_text()))
    found = [Mutant(path, *change) for node in nodes for change in changes(node)]
    return sorted(found, key=lambda mutant: (mutant.old.lineno, mutant.old.col_offset))


def changes(node: ast.AST) -> Iterator[tuple[str, ast.expr, ast.expr, ast.expr | None]]:
    """What can be changed at a node: the kind, the old expression, the new one, and what that lacks."""
    if isinstance(node, ast.If) and not asks_for_none(node.test):
        yield "guard", node.test, ast.Constant(False), None
    if isinstance(node, ast.BoolOp):
        for position, dropped in enumerate(node.values):
            if asks_for_none(dropped) or is_fallback(node):
                continue
            rest = [value for index, value in enumerate(node.values) if index != position]
            yield "operand", node, rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest), dropped
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in OPPOSITES:
        yield "comparison", node, ast.Compare(node.left, [OPPOSITES[type(node.ops[0])]()], node.comparators), None
    if isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load) and any(is_rule(part) for part in node.elts):
        for position, dropped in enumerate(node.elts):
            rest = [part for index, part in enumerate(node.elts) if index != position]
            yield "element", node, ast.Tuple(rest, ast.Load()), dropped


def asks_for_none(test: ast.expr) -> bool:
    """Whether the condition is `x is None` or `x is not None`."""
    return isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Is | ast.IsNot)


def is_fallback(chain: ast.BoolOp) -> bool:
    """Whether the chain is a value or else another one: `x or ""`, `stored or now`."""
    plain = isinstance(chain.values[-1], ast.Constant | ast.Attribute | ast.Name)
    return isinstance(chain.op, ast.Or) and plain and isinstance(chain.values[0], ast.Attribute)


def is_rule(part: ast.expr) -> bool:
    """Whether the element of a tuple is one of several things to do or to look for, and not a field of a record."""
    return isinstance(part, ast.Starred) or (isinstance(part, ast.Attribute) and part.attr.isupper())
