"""Ordinary mistakes of users end with one line that says what is wrong, and never with a traceback."""

from pathlib import Path

import pytest

from tests.client.conftest import Desk, write_results
from tests.support.apiserver.kubelet import KubeletServer


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (("compare", "tiny", "--picture", "{}/absent/x.svg"), "{}/absent/x.svg: No such file or directory"),
        (("compare", "tiny", "--picture", "{}"), "{}: Is a directory"),
        (("download", "tiny", "-d", "{}/file"), "{}/file: "),
        (("download", "tiny", "-d", "{}/file/below"), "{}/file/below: Not a directory"),
        (("download", "tiny", "-d", "/proc/absent"), "/proc/absent: "),
    ],
)
def test_a_place_that_cannot_be_written_is_named(
    desk: Desk, gang: KubeletServer, tmp_path: Path, arguments: tuple[str, ...], place: str
) -> None:
    write_results(gang)
    (tmp_path / "file").touch()
    ended = desk.distill(*(word.format(tmp_path) for word in arguments))
    assert ended.code == 1
    (error,) = ended.errors.splitlines()
    assert error.startswith(f"error: {place.format(tmp_path)}")
