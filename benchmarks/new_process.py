"""Programs in processes of their own: for what a process can only do, or use, once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def printed(code: str, *arguments: object) -> str:
    """What Python code prints in a new process, in the root of the repository.

    Raises:
        RuntimeError: the code failed; the message holds what it wrote to stderr.
    """
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=Path(__file__).resolve().parents[1],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"The new process failed:\n{done.stderr}")
    return done.stdout
