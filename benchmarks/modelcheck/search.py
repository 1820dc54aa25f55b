"""The search: all stories without a fault, then all with one, with two, and so on, each state once.

The first story that reaches a state has the fewest faults. States in which a further fault may happen are kept; of
those of the last layer only the keys are, so that they take little memory.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks.modelcheck import steps
from benchmarks.modelcheck.key import key
from benchmarks.modelcheck.steps import Step
from distill_operator.types.actions import Create, Plan
from tests.support.operator.hazards import Hazards

PASSES = 3
"""A pass may open an attempt, see its Job, and clear what is left; after that, passes do nothing."""
REPORT_SECONDS = 5.0

Trail = tuple[Any, Step] | None
"""The steps that led to a state, as a linked list."""


@dataclass
class Node:
    """A state, and how it was reached."""

    state: Hazards
    trail: Trail
    depth: int


@dataclass(frozen=True)
class Violation:
    """A story after which a promise is broken."""

    story: tuple[Step, ...]
    error: str

    def text(self) -> str:
        """For a test."""
        lines = ", ".join(f'("{name}", {rank})' for name, rank in self.story)
        return f"{self.error}\n\n    cluster = Hazards()\n    for step in [{lines}]:\n        cluster.step_world(*step)"


@dataclass
class Search:
    """One search, with its bounds."""

    most_states: int
    most_seconds: float
    most_faults: int
    settle_every: int = 0
    """After every so many states one is settled: then the job must end."""
    say: Callable[[str], object] = print
    prefix: tuple[Step, ...] = ()
    """Every story begins with these steps."""
    states: int = 0
    transitions: int = 0
    settled: int = 0
    depth: int = 0
    closed: int = -1
    """All stories with at most so many faults were searched to their end."""
    began: float = field(default_factory=time.monotonic)
    violation: Violation | None = None
    _seen: set[int] = field(default_factory=set)
    _reported: float = 0.0
    _layer: int = 0

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.began

    @property
    def over(self) -> bool:
        """Whether a bound is reached, or a violation found."""
        return self.violation is not None or self.states >= self.most_states or self.seconds >= self.most_seconds

    def run(self) -> Violation | None:
        """Search; the first violation, with its story shortened, or None."""
        state = Hazards()
        trail: Trail = None
        for step in self.prefix:
            state.step_world(*step)
            trail = (trail, step)
        first = Node(state, trail, len(self.prefix))
        self._add(first)
        kept = self._spread([first])
        while not self.over and self._layer < self.most_faults:
            self.closed = self._layer
            self._layer += 1
            kept = self._spread(self._with_a_fault(kept))
        if not self.over:
            self.closed = self._layer
        if self.violation is not None:
            self.violation = shortened(self.violation)
        return self.violation

    def _with_a_fault(self, nodes: list[Node]) -> Iterator[Node]:
        for node in nodes:
            for step in steps.faults(node.state):
                new = self._take(node, step)
                if new is not None:
                    yield new

    def _spread(self, seeds: Any) -> list[Node]:
        """Everything that ordinary steps reach from these nodes. Empty in the last layer, which nothing follows."""
        kept = []
        for seed in seeds:
            waiting = deque([seed])
            while waiting:
                node = waiting.popleft()
                if self._layer < self.most_faults:
                    kept.append(node)
                for step in steps.ordinary(node.state):
                    new = self._take(node, step)
                    if self.over:
                        return kept
                    if new is not None:
                        waiting.append(new)
        return kept

    def _take(self, node: Node, step: Step) -> Node | None:
        """The node after a step; None if its state is known, or a promise is broken."""
        self.transitions += 1
        state = node.state.copy()
        trail = (node.trail, step)
        try:
            state.step_world(*step)
        except Exception as error:  # noqa: BLE001 (whatever it is, the story is wanted)
            self.violation = Violation(story_of(trail), f"{type(error).__name__}: {error}")
            return None
        new = Node(state, trail, node.depth + 1)
        return new if self._add(new) else None

    def _add(self, node: Node) -> bool:
        """Count a state; False if it is known."""
        mark = hash(key(node.state))
        if mark in self._seen:
            return False
        self._seen.add(mark)
        self.states += 1
        self.depth = max(self.depth, node.depth)
        problem = quiet_after_passes(node) or self._unsettled(node)
        if problem is not None:
            self.violation = Violation(story_of(node.trail), problem)
        if self.seconds - self._reported >= REPORT_SECONDS:
            self._reported = self.seconds
            self.say(self.progress())
        return True

    def _unsettled(self, node: Node) -> str | None:
        if not self.settle_every or self.states % self.settle_every or node.state.deleted:
            return None
        self.settled += 1
        return unsettled(node.state)

    def progress(self) -> str:
        """One line."""
        rate = self.states / max(self.seconds, 0.001)
        return (
            f"{self.seconds:6.0f} s  {self.states} states ({rate:.0f}/s), {self.transitions} transitions, "
            f"faults {self._layer}, depth {self.depth}, {self.settled} settled"
        )

    def bound(self) -> str:
        """What was searched, for people."""
        whole = "none to its end"
        if self.closed >= 0:
            whole = f"all stories with at most {self.closed} faults and delays"
        partly = f"; a part of those with {self._layer}" if self.closed < self._layer else ""
        return f"searched: {whole}{partly}; the longest has {self.depth} steps"


def story_of(trail: Trail) -> tuple[Step, ...]:
    """The steps from the start."""
    found = []
    while trail is not None:
        trail, step = trail
        found.append(step)
    return tuple(reversed(found))


def quiet(plan: Plan) -> bool:
    """Whether a pass would do nothing new. Deletions are asked for again until their object is gone."""
    return plan.status is None and not plan.events and not [a for a in plan.actions if isinstance(a, Create)]


def quiet_after_passes(node: Node) -> str | None:
    """Planning again on one's own result does nothing: what is wrong, if passes go on and on."""
    if node.trail is None or node.trail[1][0] != "operate" or node.state.deleted:
        return None
    state = node.state
    try:
        for _ in range(PASSES):
            if quiet(state.plan()):
                return None
            state = state.copy()
            state.operate()
        return None if quiet(state.plan()) else f"{PASSES + 1} passes in a row all change something"
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__} in a further pass: {error}"


def unsettled(state: Hazards) -> str | None:
    """When all goes well from here on, the job ends: what is wrong, if it does not."""
    try:
        state.copy().settle(rounds=60)
    except Exception as error:  # noqa: BLE001
        return f"from here on all goes well, and still: {type(error).__name__}: {error}"
    return None


def breaks(story: tuple[Step, ...]) -> str | None:
    """What the story breaks."""
    state = Hazards()
    trail: Trail = None
    for step in story:
        try:
            state.step_world(*step)
        except Exception as error:  # noqa: BLE001
            return f"{type(error).__name__}: {error}"
        trail = (trail, step)
    return quiet_after_passes(Node(state, trail, len(story))) or (None if state.deleted else unsettled(state))


def shortened(violation: Violation) -> Violation:
    """The violation with every step left out that it does not need."""
    story, error, position = violation.story, violation.error, 0
    while position < len(story):
        fewer = story[:position] + story[position + 1 :]
        found = breaks(fewer)
        if found is not None:
            story, error, position = fewer, found, 0
        else:
            position += 1
    return Violation(story, error)
