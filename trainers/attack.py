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

    python -m trainers.attack --run=runs/digits --server=localhost:8500 --model=digits

attacks a served model over gRPC with an attack that needs no gradient, and asks its detector, if it
has one. The run gives the images and the ball; its own model is not asked.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from keras_robust.core.atomic_files import write_json, write_text
from keras_robust.core.quiet_tensorflow import quiet_logger, quiet_start
from keras_robust.experiments.flags import attack_flags, command_line

if TYPE_CHECKING:
    import keras_robust as kr
    from keras_robust.experiments.runs.attack_run import AttackedTestSet
    from keras_robust.experiments.runs.attack_served_model import Verdict
    from keras_robust.experiments.runs.loaded_run import LoadedRun

PROGRAM = "trainers.attack"
MULTI_TASK = "multi_task"


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
    attack_flags.define_tasks(values)


def run(
    values: flags.FlagValues, command: str = ""
) -> tuple[Mapping[str, AttackedTestSet | Verdict], Path]:
    """Attacks the run that the flags name, and writes what comes out.

    Args:
        values: the parsed flags.
        command: what the user typed, to be kept beside the goals.

    Returns:
        What came of it, by the name of the solver, of an attack without one by its own; and the
        directory that the images are in.

    Raises:
        ValueError, OSError: what the user can mend, before the first attack where it can be known.
    """
    path = command_line.required(values, "run", "runs/digits")
    name = values.attack or ("square" if values.server else "pgd")
    if values.server:
        command_line.required(values, "model", "digits")
    if values.solver and name != MULTI_TASK:
        raise ValueError(
            f"--solver weighs the tasks of --attack={MULTI_TASK}; the attack is {name!r}."
        )
    with quiet_start():
        from keras_robust.experiments.runs import attack_run, loaded_run

        command_line.initialize_devices()
    one = loaded_run.load_run(path, values.checkpoint, values.data_dir)
    attacks, tasks = _attacks(values, one, name), _tasks(values)
    chosen = {"target": values.target, "limit": values.limit, "seed": values.seed}
    if values.server:
        directory = _directory(values, one, f"{values.model}_{name}")
        verdict = _served(values, one, attacks[name], chosen)
        verdict.crafted.save(directory, values.pictures)
        return {name: verdict}, directory
    directory = _directory(values, one, f"{name}_{values.tasks}" if values.tasks else name)
    done = {}
    for solver, attack in attacks.items():
        with quiet_logger():  # every attack is traced, on purpose
            done[solver] = attack_run.attack_run(one, attack, tasks=tasks, **chosen)
        done[solver].save(directory / solver if len(attacks) > 1 else directory, values.pictures)
    _write_goals(values, name, done, directory, command)
    return done, directory


def _directory(values: flags.FlagValues, one: LoadedRun, name: str) -> Path:
    directory = Path(values.output_dir or one.run.path / "attacks" / name)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _attacks(values: flags.FlagValues, one: LoadedRun, name: str) -> dict[str, kr.Attack]:
    """The attack, once for each solver."""
    settings = attack_flags.settings(values) | attack_flags.task_settings(values)
    return {
        solver or name: one.attack(
            name,
            settings | {"solver": solver},
            norm=values.norm,
            radius=values.radius,
            targeted=values.target is not None,
        )
        for solver in values.solver or [None]
    }


def _tasks(values: flags.FlagValues) -> object:
    """The tasks that the flags name; None where they name none."""
    from keras_robust.experiments.recipes import attack_options

    given = {k: v for k, v in attack_flags.task_settings(values).items() if v}
    return attack_options.tasks(attack_options.Settings(**given)) if given else None


def _write_goals(
    values: flags.FlagValues,
    name: str,
    done: Mapping[str, AttackedTestSet],
    directory: Path,
    command: str,
) -> None:
    """A table of the goals achieved, and the same as JSON; nothing where there are no tasks."""
    import keras_robust as kr
    from keras_robust.evaluation.rendering.markdown import markdown_table

    found = {key: one.goals for key, one in done.items() if one.goals is not None}
    if not found:
        return
    # Of a universal perturbation a task is an image like any other: nobody asks for each.
    table = kr.evaluation.goals_table(found, each=values.tasks != "universal")
    points = next(iter(found.values())).points
    what = "groups of images" if values.tasks == "universal" else "images"
    head = f"Goals that {name} achieves on {points:,} {what}"
    text = f"{head}\n\n{markdown_table(table)}\n\nCommand: `{command}`\n"
    write_text(directory / "goals.md", text)
    rows = [
        {"name": key, "attack": done[key].attack.name, "average": goals.average}
        | {"radius": float(done[key].attack.ball.radius), **dataclasses.asdict(goals)}
        for key, goals in found.items()
    ]
    write_json(directory / "goals.json", {"command": command, "seed": values.seed, "goals": rows})


def _served(
    values: flags.FlagValues, one: LoadedRun, attack: kr.Attack, chosen: dict[str, Any]
) -> Verdict:
    from keras_robust.experiments.runs import attack_served_model
    from keras_robust.serving.client.grpc_client import Client

    with Client(values.server) as client:
        return attack_served_model.attack(
            one, attack_served_model.Served(client, values.model), attack, **chosen
        )


def main(_: list[str]) -> None:
    """Attacks; what the user can mend ends it with one sentence."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its log repeats what the error says
    try:
        done, directory = run(flags.FLAGS, f"python -m {PROGRAM} {shlex.join(sys.argv[1:])}")
    except command_line.USER_ERRORS as error:
        command_line.fail(PROGRAM, error)
    for found in done.values():
        print(found.summary())
    print(f"Written to {directory}")


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
