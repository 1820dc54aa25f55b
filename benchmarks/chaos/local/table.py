"""The table of `make chaos`."""

from __future__ import annotations

from benchmarks.chaos.local.disturbances import KINDS, Disturbance


def table(disturbances: list[Disturbance]) -> str:
    """Disturbances by kind, with their cost."""
    head = f"{'disturbance':34}{'times':>6}{'resumes':>9}{'lost steps':>12}{'most':>6}{'fallbacks':>11}{'ended in':>10}"
    lines = [head, "-" * len(head)]
    for kind in [*KINDS, "all"]:
        made = [one for one in disturbances if kind in (one.kind, "all")]
        if not made:
            continue
        ends = sorted(one.end_seconds for one in made if one.end_seconds is not None)
        lost = [one.lost_steps for one in made]
        resumes = sum(one.resumed_from is not None for one in made)
        ended = f"{ends[len(ends) // 2]:.1f} s" if ends else "-"
        fallbacks = sum(one.fallbacks for one in made)
        lines.append(f"{kind:34}{len(made):6}{resumes:9}{sum(lost):12}{max(lost):6}{fallbacks:11}{ended:>10}")
    return "\n".join(lines)
