"""Attacks the test images of a run with one attack, and keeps what comes out.

    python -m trainers.attack --run=runs/digits --attack=pgd --steps=40 --output_dir=runs/digits/pgd

writes adversarial.npz with the arrays images, labels, adversarial, clean_predictions and
predictions, and the first images as PNG files (rounded to 8 bits). --target=3 aims at one class;
--attack=multi_targeted tries every class. What is not given is as the recipe of the run says.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from serving.quiet import quiet_start
from trainers import attack_flags, command_line

if TYPE_CHECKING:
    from trainers.crafting import Crafted

PROGRAM = "trainers.attack"


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_string("run", None, "A run directory.", flag_values=values)
    flags.DEFINE_string("attack", "pgd", "Name of the attack.", flag_values=values)
    flags.DEFINE_integer(
        "target", None, "Class to reach; by default any but the label.", flag_values=values
    )
    flags.DEFINE_string(
        "output_dir", None, "By default attacks/ATTACK in the run.", flag_values=values
    )
    flags.DEFINE_integer(
        "pictures", 8, "Images to write as PNG.", lower_bound=0, flag_values=values
    )
    attack_flags.define(values)


def run(values: flags.FlagValues) -> tuple[Crafted, Path]:
    """Attacks the run that the flags name, and writes what comes out.

    Args:
        values: the parsed flags.

    Returns:
        The images, and the directory they are in.

    Raises:
        ValueError, OSError: what the user can mend.
    """
    path = command_line.required(values, "run", "runs/digits")
    with quiet_start():
        from trainers import crafting, opened

        command_line.wake_tensorflow()
    one = opened.open_run(path, values.checkpoint, values.data_dir)
    attack = one.attack(
        values.attack,
        attack_flags.settings(values),
        norm=values.norm,
        radius=values.radius,
        targeted=values.target is not None,
    )
    directory = Path(values.output_dir or one.run.path / "attacks" / values.attack)
    directory.mkdir(parents=True, exist_ok=True)
    crafted = crafting.craft(
        one, attack, target=values.target, limit=values.limit, seed=values.seed
    )
    crafted.save(directory, values.pictures)
    return crafted, directory


def main(_: list[str]) -> None:
    """Attacks; what the user can mend ends it with one sentence."""
    try:
        crafted, directory = run(flags.FLAGS)
    except command_line.MENDABLE as error:
        command_line.fail(PROGRAM, error)
    print(crafted.summary())
    print(f"Written to {directory}")


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
