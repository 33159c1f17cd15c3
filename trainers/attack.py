"""Attacks the test images of a run with one attack, and saves the results.

    python -m trainers.attack --run=runs/digits --attack=pgd --steps=40 --output_dir=runs/digits/pgd

writes adversarial.npz with the arrays images, labels, adversarial, clean_predictions and
predictions, and the first images as PNG files (rounded to 8 bits). --target=3 makes the attack
targeted; --attack=multi_targeted tries every class. The recipe of the run sets the options of the
attack that are not given.

    python -m trainers.attack --run=runs/pair --attack=multi_task --solver=uniform,task_oriented

crafts one perturbation that fools each member of an ensemble; with --tasks=universal --group=12
twelve images, with --tasks=transformations a model under transformations of the image.
task_success.md and task_success.json contain the success rates on all tasks at once and on each;
every solver gets its own directory of images. With --tasks, success rates are measured for any
other attack as well. --trace adds trace.json, gradients.md and pictures of the weights, losses,
success rates and gradient norms of the tasks over the steps.

Options of an attack follow its name, also the attack that multi_targeted repeats, the start of an
attack along the decision boundary, and Carlini and Wagner's constant:

    --attack=multi_targeted:attack=mim
    --attack=brendel_bethge:start=pgd+steps=20+step_size=2/255+radius=16/255
    --attack=carlini_wagner:initial_const=0.7:binary_search_steps=1:steps=1000

    python -m trainers.attack --run=runs/digits --server=localhost:8500 --model=digits

attacks a served model over gRPC with a gradient-free attack, and queries its detector, if it has
one. The run provides the images and the ball; its own model is not used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from keras_robust.core.quiet_tensorflow import quiet_logger, quiet_start
from keras_robust.experiments.flags import attack_flags, command_line
from keras_robust.experiments.flags.output_path import check_output

if TYPE_CHECKING:
    import keras_robust as kr
    from keras_robust.experiments.measuring.attack_run import AttackedTestSet
    from keras_robust.experiments.measuring.attack_served_model import ServedModelAttack
    from keras_robust.experiments.runs.loaded_run import LoadedRun

PROGRAM = "trainers.attack"
MULTI_TASK = "multi_task"


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_string("run", None, "Run directory.", flag_values=values)
    flags.DEFINE_string(
        "attack",
        None,
        f"Name of the attack, with {attack_flags.NAMES_HELP}; by default pgd, for a served model "
        "square.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "server", None, "Address host:port of a model server to attack.", flag_values=values
    )
    flags.DEFINE_string("model", None, "Name of the served model.", flag_values=values)
    flags.DEFINE_integer(
        "target", None, "Class to reach; by default any class but the label.", flag_values=values
    )
    flags.DEFINE_string(
        "output_dir",
        None,
        "Directory of the results; by default attacks/ATTACK in the run.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "pictures", 8, "Number of images to write as PNG.", lower_bound=0, flag_values=values
    )
    attack_flags.define(values)
    attack_flags.define_tasks(values)


def run(
    values: flags.FlagValues, command: str = ""
) -> tuple[Mapping[str, AttackedTestSet | ServedModelAttack], Path]:
    """Attacks the run that the flags name, and writes the results.

    Args:
        values: the parsed flags.
        command: the command of the user, for `task_success.md`.

    Returns:
        The results, by the name of the solver or, without solvers, of the attack; and their
        directory.

    Raises:
        ValueError, OSError: a user error, if possible before the first attack.
    """
    path = command_line.required(values, "run", "runs/digits")
    attack = values.attack or ("square" if values.server else "pgd")
    name = attack.partition(":")[0]
    _check_flags(values, name)
    kind = f"{values.model}_{name}" if values.server else name
    directory = Path(
        values.output_dir
        or Path(path) / "attacks" / (f"{kind}_{values.tasks}" if values.tasks else kind)
    )
    check_output(directory)
    with quiet_start():
        from keras_robust.experiments.measuring import attack_run, task_traces
        from keras_robust.experiments.recipes import attack_options
        from keras_robust.experiments.runs import loaded_run

        command_line.initialize_devices()
    loaded = loaded_run.load_run(path, values.checkpoint, values.data_dir)
    task_options = attack_flags.task_options(values)
    tasks = attack_options.build_tasks(**task_options) if task_options else None
    attacks = _attacks(values, loaded, attack, task_options if name == MULTI_TASK else {})
    chosen = {"target": values.target, "limit": values.limit, "seed": values.seed}
    about_tasks = {
        "tasks": tasks,
        "success_criterion": values.success_criterion,
        "population": values.population,
        "trace": values.trace,
    }
    directory.mkdir(parents=True, exist_ok=True)
    if values.server:
        result = _attack_server(values, loaded, attacks[name], chosen)
        result.test_set.save(directory, values.pictures)
        return {name: result}, directory
    attacked = {}
    for key, one in attacks.items():
        with quiet_logger():  # every attack is traced, on purpose
            attacked[key] = attack_run.attack_run(loaded, one, **about_tasks, **chosen)
        attacked[key].save(directory / key if len(attacks) > 1 else directory, values.pictures)
    attack_run.write_task_success(directory, name, attacked, command, values.seed)
    if values.trace:
        task_traces.write(directory, attacked, command)
    return attacked, directory


def _check_flags(values: flags.FlagValues, name: str) -> None:
    """Raises for flags that do not fit together."""
    if values.server:
        command_line.required(values, "model", "digits")
        if attack_flags.task_options(values):
            raise ValueError("--tasks needs the gradients of a run; it does not go with --server.")
    elif values.model is not None:
        raise ValueError("--model is the name of a served model; give its address by --server.")
    if values.solver and name != MULTI_TASK:
        raise ValueError(
            f"--solver weights the tasks of --attack={MULTI_TASK}; the attack is {name!r}."
        )
    if values.trace and name != MULTI_TASK:
        raise ValueError(f"--trace follows --attack={MULTI_TASK}; the attack is {name!r}.")
    if name != MULTI_TASK and not values.tasks:
        for flag in ("success_criterion", "population"):
            if values[flag].value is not None:
                raise ValueError(f"--{flag} is of tasks; give --attack={MULTI_TASK} or --tasks.")


def _attacks(
    values: flags.FlagValues, loaded: LoadedRun, attack: str, task_options: dict[str, Any]
) -> dict[str, kr.Attack]:
    """The attack, once for each solver."""
    options = attack_flags.options(values) | task_options
    if values.success_criterion and attack.partition(":")[0] == MULTI_TASK:
        options["success_criterion"] = values.success_criterion
    about = {"norm": values.norm, "radius": values.radius, "targeted": values.target is not None}
    if not values.solver:
        return {attack.partition(":")[0]: loaded.attack(attack, options, **about)}
    return {
        solver: loaded.attack(attack, options | {"solver": solver}, **about)
        for solver in values.solver
    }


def _attack_server(
    values: flags.FlagValues, loaded: LoadedRun, attack: kr.Attack, chosen: dict[str, Any]
) -> ServedModelAttack:
    from keras_robust.experiments.measuring.attack_served_model import (
        ServedModel,
        attack_served_model,
    )
    from keras_robust.serving.client.grpc_client import Client

    with Client(values.server) as client:
        return attack_served_model(loaded, ServedModel(client, values.model), attack, **chosen)


def main(_: list[str]) -> None:
    """Runs the program."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its log repeats the error message
    results, directory = run(flags.FLAGS, command_line.command(PROGRAM))
    for result in results.values():
        print(result.summary())
    print(f"Written to {directory}")


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
