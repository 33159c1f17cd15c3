"""Results of a benchmark as rows of a Markdown table."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from benchmarks.timing import Spread

HEADER = (
    "| what | target | measured: median (smallest to largest) | reached | command | machine |\n"
    "| --- | --- | --- | --- | --- | --- |"
)
_PACKAGES = ("tensorflow", "keras")


class Target(NamedTuple):
    """A bound of a measured value."""

    bound: float
    least: bool = False

    def __str__(self) -> str:
        return f"at {'least' if self.least else 'most'} {self.bound:g}"

    def reached_by(self, value: float) -> bool:
        """Whether a value is within the bound."""
        return value >= self.bound if self.least else value <= self.bound


class Row(NamedTuple):
    """A row of the table: what was measured, its value, and its target if it has one."""

    what: str
    measured: Spread | float
    target: Target | None = None
    note: str = ""

    def cells(self) -> list[str]:
        """The first four cells; a target is compared with the median."""
        value = self.measured.median if isinstance(self.measured, Spread) else self.measured
        measured = str(self.measured) if isinstance(self.measured, Spread) else f"{value:g}"
        reached = "" if self.target is None else "yes" if self.target.reached_by(value) else "no"
        note = f"; {self.note}" if self.note else ""
        return [self.what, str(self.target or ""), measured + note, reached]


def table(rows: Sequence[Row], command: str) -> str:
    """The table in Markdown, with the command and the machine in each row."""
    ends = [f"`{command}`", machine()]
    return "\n".join([HEADER, *(f"| {' | '.join(row.cells() + ends)} |" for row in rows)])


def show(rows: Sequence[Row], program: str) -> None:
    """Prints the rows of a benchmark that was started from the command line."""
    print(table(rows, shlex.join(["python", f"benchmarks/{program}.py", *sys.argv[1:]])))


def machine() -> str:
    """The processor, the cores available to this process, and the versions of packages."""
    versions = [f"{name} {metadata.version(name)}" for name in _PACKAGES]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ", ".join(
        [_processor(), f"{cores} cores", f"Python {platform.python_version()}", *versions]
    )


def _processor() -> str:
    """Model, family and bfloat16 units; cloud machines hide the model's number."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    pairs = (line.partition(":") for line in lines)
    facts = {key.strip(): value.strip() for key, _, value in pairs if value}
    name = facts.get("model name", platform.machine())
    if "cpu family" in facts:
        name += f" (family {facts['cpu family']}, model {facts.get('model', '?')})"
    flags = facts.get("flags", "").split()
    units = [unit for unit in ("avx512_bf16", "amx_bf16") if unit in flags]
    return f"{name} with {' and '.join(units) or 'no bfloat16 units'}"
