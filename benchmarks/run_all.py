"""Runs all benchmarks and prints one Markdown table: the rows of `README.md`.

    python benchmarks/run_all.py

Run it on an idle machine. Each part has a time limit; if a part fails, it is named, the others run,
and the exit code is 1.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    # The root, for the packages: `serving` is a benchmark in this directory.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from absl import app, flags

from benchmarks import report

ROOT = Path(__file__).resolve().parents[1]
PARTS = {
    "import_time": ["import_time"],
    "attack_small_cnn": ["attack_throughput", "--net=small_cnn"],
    "attack_resnet20": ["attack_throughput", "--net=resnet20"],
    "auto_attack": ["auto_attack"],
    "folded_batch_norm": ["folded_batch_norm"],
    "attack_steps": ["attack_steps"],
    "tracing": ["tracing"],
    "train_step": ["train_step"],
    "defense_cost": ["defense_cost"],
    "detector_cost": ["detector_cost"],
    "ensemble_step": ["ensemble_step"],
    "multi_task": ["multi_task"],
    "certification": ["certification"],
    "serving": ["serving"],
}


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_multi_enum(
        "part", list(PARTS), list(PARTS), "Part to run; may be repeated.", flag_values=values
    )
    flags.DEFINE_list("extra", [], "Further flags of each part.", flag_values=values)
    flags.DEFINE_float("limit", 900.0, "Time limit of a part in seconds.", flag_values=values)


def run(values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Prints the rows of each part; returns the parts that failed."""
    print(report.HEADER, flush=True)
    failed = []
    for part in values.part:
        began = time.monotonic()
        rows = rows_of(part, values.extra, values.limit)
        failed += [] if rows else [part]
        print("\n".join(rows), end="\n" if rows else "", flush=True)
        print(f"{part}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return failed


def rows_of(part: str, extra: list[str], limit: float) -> list[str]:
    """The rows that a part prints; empty if it fails."""
    program, *arguments = PARTS[part]
    command = [sys.executable, f"benchmarks/{program}.py", *arguments, *extra]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=True
        )
    except subprocess.TimeoutExpired:
        print(f"{part} was stopped after {limit:g} seconds.", file=sys.stderr)
        return []
    except subprocess.CalledProcessError as error:
        print(f"{part} failed:\n{error.stderr}", file=sys.stderr)
        return []
    lines = done.stdout.splitlines()
    for line in lines:
        if not line.startswith("|"):
            print(line, file=sys.stderr)  # a library that was skipped
    header = report.HEADER.splitlines()
    return [line for line in lines if line.startswith("|") and line not in header]


def main(_: list[str]) -> None:
    """Runs the parts."""
    failed = run()
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
