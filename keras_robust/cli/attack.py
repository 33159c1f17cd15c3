"""Attacks the test images of a model with one attack, and saves the adversarial images.

    keras-robust attack --model=my.keras --data=digits --radius=0.1 --attack=pgd --steps=40
    keras-robust attack --run=runs/digits --attack=multi_targeted

writes adversarial.npz with the arrays images, labels, adversarial, clean_predictions and
predictions, and the first images as PNG files (rounded to 8 bits). --target=3 makes the attack
targeted.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from keras_robust.cli import model_flags
from keras_robust.experiments.flags import attack_flags
from keras_robust.experiments.flags.output_path import check_output

MAIN_FLAGS = ("data", "attack", "norm", "radius", "steps", "target", "limit", "output_dir")
positional = model_flags.positional


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the command."""
    model_flags.define(values)
    model_flags.define_detector(values, score=None)
    attack_flags.define(values)
    flags.DEFINE_string(
        "attack",
        "pgd",
        f"Name of the attack, with {attack_flags.NAMES_HELP}.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "target", None, "Class to reach; by default any class but the label.", flag_values=values
    )
    flags.DEFINE_string(
        "output_dir",
        None,
        "Directory of the results; by default attacks/ATTACK in the run, or MODEL_attacks/ATTACK "
        "here.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "pictures", 8, "Number of images to write as PNG.", lower_bound=0, flag_values=values
    )


def run(values: flags.FlagValues) -> str:
    """Attacks the model that the flags name, and writes the results.

    Returns:
        The summary of the attack.

    Raises:
        ValueError, OSError: a user error, if possible before the attack.
    """
    model_flags.check(values, threat_model=True)
    name = values.attack.partition(":")[0]
    base = f"{Path(values.model).stem}_attacks" if values.model else Path(values.run) / "attacks"
    directory = check_output(values.output_dir or Path(base) / name)
    loaded = model_flags.load(values)
    from keras_robust.core.quiet_tensorflow import quiet_logger
    from keras_robust.experiments.measuring.attack_run import attack_run

    attack = loaded.attack(
        values.attack,
        attack_flags.options(values),
        norm=values.norm,
        radius=values.radius,
        targeted=values.target is not None,
    )
    directory.mkdir(parents=True, exist_ok=True)
    with quiet_logger():  # an attack is traced for each batch size
        attacked = attack_run(
            loaded, attack, target=values.target, limit=values.limit, seed=values.seed
        )
    attacked.save(directory, values.pictures)
    return f"{attacked.summary()}\nWritten to {directory}"
