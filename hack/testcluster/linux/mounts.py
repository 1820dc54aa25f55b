"""Find and undo mounts."""

from pathlib import Path

from testcluster.linux.processes import run


def below(directory: Path, mountinfo: str | None = None) -> list[Path]:
    """Mount points at and under ``directory``, the last mounted first."""
    lines = (mountinfo if mountinfo is not None else Path("/proc/self/mountinfo").read_text()).splitlines()
    # The kernel writes blanks and backslashes in names as octal numbers.
    places = [Path(line.split()[4].encode().decode("unicode_escape")) for line in lines]
    return [place for place in reversed(places) if place.is_relative_to(directory)]


def undo(directory: Path) -> None:
    """Unmount everything at and under ``directory``; RuntimeError when something stays."""
    reasons: list[str] = []
    for _ in range(5):  # unmounting one can uncover another
        if not (found := below(directory)):
            return
        reasons = []
        for mount in found:
            try:
                run("umount", "--lazy", mount)
            except RuntimeError as error:  # no matter where its owner was faster
                reasons.append(str(error))
    if left := below(directory):
        raise RuntimeError(f"cannot unmount {', '.join(map(str, left))}: {'; '.join(reasons)}")
