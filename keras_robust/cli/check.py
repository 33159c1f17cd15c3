"""Runs the sanity checks for gradient masking on a model.

    keras-robust check --model=my.keras --data=digits --radius=0.1
    keras-robust check --run=runs/digits

prints the result of each check. A failed check means that robust accuracies measured with gradient
attacks may be too high; passed checks prove nothing.
"""

from __future__ import annotations

from absl import flags

from keras_robust.cli import model_flags
from keras_robust.experiments.flags import attack_flags

MAIN_FLAGS = ("data", "norm", "radius", "steps", "limit", "preprocess")
positional = model_flags.positional


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the command."""
    model_flags.define(values)
    attack_flags.define_files(values)
    attack_flags.define_ball(values)
    attack_flags.define_images(values)
    flags.DEFINE_integer("steps", 20, "Number of steps of PGD.", lower_bound=1, flag_values=values)
    values.set_default("limit", 100)


def run(values: flags.FlagValues) -> str:
    """Runs the sanity checks.

    Returns:
        One line per check.

    Raises:
        ValueError, OSError: a user error.
    """
    model_flags.check(values, threat_model=True)
    loaded = model_flags.load(values)
    import keras_robust as kr
    from keras_robust.core.quiet_tensorflow import quiet_logger

    with quiet_logger():  # many attacks on one model are traced on purpose
        checks = kr.evaluation.sanity_checks(
            loaded.model,
            loaded.splits.test,
            loaded.ball(values.norm, values.radius),
            steps=values.steps,
            limit=values.limit,
            seed=values.seed,
            progress=_log,
        )
    failed = [check.name for check in checks if not check.passed]
    lines = [
        f"{'passed' if check.passed else 'FAILED'}  {check.name}: {check.message}"
        for check in checks
    ]
    result = f"{len(failed)} of {len(checks)} checks failed"
    return "\n".join([*lines, f"{result}: {', '.join(failed)}." if failed else f"{result}."])


def _log(line: str) -> None:
    print(f"  {line}", flush=True)
