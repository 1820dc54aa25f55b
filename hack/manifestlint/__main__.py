"""python -m manifestlint: prints every finding that is not explained; exit status 1 if there is one."""

import sys
import tempfile
from pathlib import Path

from manifestlint import exemptions, manifests, tools

CANNOT_RUN = 77
"""Exit status when the tools cannot be had, as of a skipped test in automake."""


def main() -> int:
    """Check every set of manifests. Returns the exit status."""
    try:
        for part in (tools.KUBE_SCORE, tools.CHECKOV):
            part.ensure(lambda line: print(line, file=sys.stderr))
    except (RuntimeError, OSError) as error:
        print(f"manifests are not checked, because a tool cannot be had: {error}")
        return CANNOT_RUN
    with tempfile.TemporaryDirectory(prefix="manifestlint-") as temporary:
        folder = Path(temporary)
        manifests.write(folder)
        found = tools.findings(folder)
    unexplained, unused = exemptions.explain(found, exemptions.read())
    for finding in sorted(unexplained, key=str):
        print(finding)
    for needless in unused:
        print(f"{exemptions.FILE.name}: {needless} covers no finding any more; remove it")
    return 1 if unexplained or unused else 0


if __name__ == "__main__":
    sys.exit(main())
