"""Attacks the test images of a run with one attack, and keeps what comes out.

    python -m trainers.attack --run=runs/digits --attack=pgd --steps=40 --output_dir=runs/digits/pgd

writes adversarial.npz with the arrays images, labels, adversarial, clean_predictions and
predictions, and the first images as PNG files (rounded to 8 bits). --target=3 aims at one class;
--attack=multi_targeted tries every class. What is not given is as the recipe of the run says.

    python -m trainers.attack --run=runs/digits --server=localhost:8500 --model=digits

attacks a served model over gRPC with an attack that needs no gradient, and asks its detector, if it
has one. The run gives the images and the ball; its own model is not asked.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from serving.quiet import quiet_start
from trainers import attack_flags, command_line

if TYPE_CHECKING:
    from keras_robust import Attack
    from trainers.crafting import Crafted
    from trainers.opened import Opened
    from trainers.served import Verdict

PROGRAM = "trainers.attack"


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_string("run", None, "A run directory.", flag_values=values)
    flags.DEFINE_string(
        "attack",
        None,
        "Name of the attack; by default pgd, of a served model square.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "server", None, "host:port of a model server, to attack what it serves.", flag_values=values
    )
    flags.DEFINE_string("model", None, "The name it is served by.", flag_values=values)
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


def run(values: flags.FlagValues) -> tuple[Crafted | Verdict, Path]:
    """Attacks the run that the flags name, and writes what comes out.

    Args:
        values: the parsed flags.

    Returns:
        What came of it, and the directory that the images are in.

    Raises:
        ValueError, OSError: what the user can mend.
    """
    path = command_line.required(values, "run", "runs/digits")
    if values.server:
        command_line.required(values, "model", "digits")
    name = values.attack or ("square" if values.server else "pgd")
    with quiet_start():
        from trainers import crafting, opened

        command_line.wake_tensorflow()
    one = opened.open_run(path, values.checkpoint, values.data_dir)
    attack = one.attack(
        name,
        attack_flags.settings(values),
        norm=values.norm,
        radius=values.radius,
        targeted=values.target is not None,
    )
    directory = Path(
        values.output_dir
        or one.run.path / "attacks" / (f"{values.model}_{name}" if values.server else name)
    )
    directory.mkdir(parents=True, exist_ok=True)
    chosen = {"target": values.target, "limit": values.limit, "seed": values.seed}
    if values.server:
        verdict = _served(values, one, attack, chosen)
        verdict.crafted.save(directory, values.pictures)
        return verdict, directory
    crafted = crafting.craft(one, attack, **chosen)
    crafted.save(directory, values.pictures)
    return crafted, directory


def _served(
    values: flags.FlagValues, one: Opened, attack: Attack, chosen: dict[str, Any]
) -> Verdict:
    from serving.client import Client
    from trainers import served

    with Client(values.server) as client:
        return served.attack(one, served.Served(client, values.model), attack, **chosen)


def main(_: list[str]) -> None:
    """Attacks; what the user can mend ends it with one sentence."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its log repeats what the error says
    try:
        found, directory = run(flags.FLAGS)
    except command_line.MENDABLE as error:
        command_line.fail(PROGRAM, error)
    print(found.summary())
    print(f"Written to {directory}")


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
