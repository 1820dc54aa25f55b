"""Finds and removes mounts."""

from pathlib import Path

from testcluster.linux.processes import run


def below(directory: Path, mountinfo: str | None = None) -> list[Path]:
    """Mount points at and below ``directory``, the last mounted first."""
    lines = (mountinfo if mountinfo is not None else Path("/proc/self/mountinfo").read_text()).splitlines()
    # The kernel escapes blanks and backslashes in names as octal numbers.
    places = [Path(line.split()[4].encode().decode("unicode_escape")) for line in lines]
    return [place for place in reversed(places) if place.is_relative_to(directory)]


def undo(directory: Path) -> None:
    """Unmount everything at and below ``directory``. Raises RuntimeError if a mount remains."""
    reasons: list[str] = []
    for _ in range(5):  # unmounting can uncover another mount
        if not (found := below(directory)):
            return
        reasons = []
        for mount in found:
            try:
                run("umount", "--lazy", mount)
            except RuntimeError as error:  # harmless if another process unmounted it first
                reasons.append(str(error))
    if left := below(directory):
        raise RuntimeError(f"cannot unmount {', '.join(map(str, left))}: {'; '.join(reasons)}")
