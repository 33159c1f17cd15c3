"""Attacks the test images of a run with one attack, and keeps what comes out.

    python -m trainers.attack --run=runs/digits --attack=pgd --steps=40 --output_dir=runs/digits/pgd

writes adversarial.npz with the arrays images, labels, adversarial, clean_predictions and
predictions, and the first images as PNG files (rounded to 8 bits). --target=3 aims at one class;
--attack=multi_targeted tries every class. What is not given is as the recipe of the run says.

    python -m trainers.attack --run=runs/pair --attack=multi_task --solver=uniform,task_oriented

has one perturbation fool each member of an ensemble; with --tasks=universal --group=12 twelve
images, with --tasks=transformations a model however the image is transformed. goals.md and
goals.json tell on how many images all goals are achieved, and each; the images of several solvers
are in a directory each. With --tasks, the goals of any other attack are looked at as well.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from serving.quiet import quiet_start
from trainers import attack_flags, command_line
from trainers.files import write_json, write_text

if TYPE_CHECKING:
    import keras_robust as kr
    from trainers.crafting import Crafted
    from trainers.opened import Opened

PROGRAM = "trainers.attack"
MULTI_TASK = "multi_task"


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
    attack_flags.define_tasks(values)


def run(values: flags.FlagValues, command: str = "") -> tuple[dict[str, Crafted], Path]:
    """Attacks the run that the flags name, and writes what comes out.

    Args:
        values: the parsed flags.
        command: what the user typed, to be kept beside the goals.

    Returns:
        The images, by the name of the solver, of an attack without one by its own; and the
        directory they are in.

    Raises:
        ValueError, OSError: what the user can mend, before the first attack where it can be known.
    """
    path = command_line.required(values, "run", "runs/digits")
    if values.solver and values.attack != MULTI_TASK:
        raise ValueError(
            f"--solver weighs the tasks of --attack={MULTI_TASK}; the attack is {values.attack!r}."
        )
    with quiet_start():
        from trainers import crafting, opened

        command_line.wake_tensorflow()
    one = opened.open_run(path, values.checkpoint, values.data_dir)
    attacks, tasks = _attacks(values, one), _tasks(values)
    name = values.attack if values.tasks is None else f"{values.attack}_{values.tasks}"
    directory = Path(values.output_dir or one.run.path / "attacks" / name)
    directory.mkdir(parents=True, exist_ok=True)
    done = {}
    for solver, attack in attacks.items():
        done[solver] = crafting.craft(
            one, attack, target=values.target, tasks=tasks, limit=values.limit, seed=values.seed
        )
        done[solver].save(directory / solver if len(attacks) > 1 else directory, values.pictures)
    _write_goals(values, done, directory, command)
    return done, directory


def _attacks(values: flags.FlagValues, one: Opened) -> dict[str, kr.Attack]:
    """The attack, once for each solver."""
    settings = attack_flags.settings(values) | attack_flags.task_settings(values)
    return {
        solver or values.attack: one.attack(
            values.attack,
            settings | {"solver": solver},
            norm=values.norm,
            radius=values.radius,
            targeted=values.target is not None,
        )
        for solver in values.solver or [None]
    }


def _tasks(values: flags.FlagValues) -> object:
    """The tasks that the flags name; None where they name none."""
    from trainers import attack_settings

    given = {k: v for k, v in attack_flags.task_settings(values).items() if v}
    return attack_settings.tasks(attack_settings.Settings(**given)) if given else None


def _write_goals(
    values: flags.FlagValues, done: Mapping[str, Crafted], directory: Path, command: str
) -> None:
    """A table of the goals achieved, and the same as JSON; nothing where there are no tasks."""
    import keras_robust as kr
    from keras_robust.evaluation.markdown import markdown_table

    found = {name: one.goals for name, one in done.items() if one.goals is not None}
    if not found:
        return
    # Of a universal perturbation a task is an image like any other: nobody asks for each.
    table = kr.evaluation.goals_table(found, each=values.tasks != "universal")
    points = next(iter(found.values())).points
    what = "groups of images" if values.tasks == "universal" else "images"
    head = f"Goals that {values.attack} achieves on {points:,} {what}"
    text = f"{head}\n\n{markdown_table(table)}\n\nCommand: `{command}`\n"
    write_text(directory / "goals.md", text)
    rows = [
        {"name": name, "attack": done[name].attack.name, "average": goals.average}
        | {"radius": float(done[name].attack.ball.radius), **dataclasses.asdict(goals)}
        for name, goals in found.items()
    ]
    write_json(directory / "goals.json", {"command": command, "seed": values.seed, "goals": rows})


def main(_: list[str]) -> None:
    """Attacks; what the user can mend ends it with one sentence."""
    try:
        done, directory = run(flags.FLAGS, f"python -m {PROGRAM} {shlex.join(sys.argv[1:])}")
    except command_line.MENDABLE as error:
        command_line.fail(PROGRAM, error)
    for crafted in done.values():
        print(crafted.summary())
    print(f"Written to {directory}")


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
