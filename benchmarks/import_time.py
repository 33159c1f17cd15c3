"""Time that `import keras_robust` adds to importing TensorFlow and Keras, in fresh processes.

python benchmarks/import_time.py
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # The root, for the packages: `serving` is a benchmark in this directory.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from absl import app, flags

from benchmarks import new_process, report, timing

# NumPy and scikit-learn count as the library's, unless TensorFlow has imported them.
CODE = """
from time import perf_counter
began = perf_counter()
import tensorflow, keras
base = perf_counter()
import keras_robust
print(base - began, perf_counter() - base)
"""


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_integer(
        "repeats", 9, "Number of processes that count.", lower_bound=1, flag_values=values
    )


def run(values: flags.FlagValues = flags.FLAGS) -> list[report.Row]:
    """Runs the benchmark; returns the rows to print."""
    imported()  # fills the disk cache, and compiles modules
    times = [imported() for _ in range(values.repeats)]
    base, added = (timing.spread(column) for column in zip(*times, strict=True))
    return [
        report.Row(
            "`import keras_robust` after `import tensorflow, keras`: seconds added",
            added,
            report.Target(0.3),
            f"the two alone take {base.median:.3g} s",
        )
    ]


def imported() -> tuple[float, float]:
    """Seconds of importing TensorFlow and Keras, then of importing the library."""
    base, added = new_process.printed(CODE).split()
    return float(base), float(added)


def main(_: list[str]) -> None:
    """Prints the table."""
    report.show(run(), "import_time")


if __name__ == "__main__":
    define_flags()
    app.run(main)
