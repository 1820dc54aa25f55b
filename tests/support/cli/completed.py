"""What the shell proposes: `distill` as a process, asked as the completion script asks it."""

import subprocess
import sys

from tests.support.machine.python import environment

_START = "import sys; sys.argv = ['distill']; from distill_cli.main import main; main()"


def completed(words: str, **variables: str) -> list[str]:
    """The proposals for the last of the words; the variables are of the shell's environment."""
    asked = {"_DISTILL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    program = [sys.executable, "-c", _START]
    done = subprocess.run(program, capture_output=True, text=True, env=environment(**asked, **variables), check=False)
    assert done.stderr == ""
    return done.stdout.split()
