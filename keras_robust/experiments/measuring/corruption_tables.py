"""Accuracy of runs under corruptions, written next to their reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras_robust as kr
from keras_robust.core import atomic_files
from keras_robust.core.validation import lookup
from keras_robust.evaluation.corruption.measure import CORRUPTIONS
from keras_robust.experiments.runs.loaded_run import LoadedRun

ALL = "all"


def checked(names: Sequence[str]) -> tuple[str, ...]:
    """The corruptions by name; `all` stands for the fifteen.

    Raises:
        ValueError: an unknown corruption.

    Example:
        >>> checked(["fog"]), len(checked(["all"]))
        (('fog',), 15)
    """
    if list(names) == [ALL]:
        return tuple(CORRUPTIONS)
    return tuple(lookup("corruption", name, CORRUPTIONS) for name in names)


def write(
    run: LoadedRun,
    names: Sequence[str],
    limit: int | None = None,
    seed: int = 0,
    log: Callable[[str], None] = print,
) -> kr.evaluation.CorruptionAccuracy:
    """Measures a run under corruptions, and writes `corruptions.md` and `.json` into its report.

    Args:
        run: the run.
        names: as for `checked`.
        limit, seed: as for `keras_robust.evaluation.corruptions`.
        log: called with a line of text.

    Returns:
        The accuracies.
    """
    x, y = run.test_images(limit)
    found = kr.evaluation.corruptions(
        run.model, (x.numpy(), y.numpy()), checked(names), bounds=run.ball().bounds, seed=seed
    )
    run.run.report.mkdir(parents=True, exist_ok=True)
    path = run.run.report / "corruptions.md"
    atomic_files.write_text(path, f"{found.table().caption}\n\n{found.markdown()}\n")
    atomic_files.write_json(
        path.with_suffix(".json"),
        {
            "clean": found.clean,
            "mean": found.mean,
            "severities": list(found.severities),
            "accuracy": {name: list(values) for name, values in found.accuracy.items()},
            "samples": found.samples,
            "seed": found.seed,
        },
    )
    log(f"  corruptions: {found.mean:.1%} on average, clean {found.clean:.1%}: {path}")
    return found
