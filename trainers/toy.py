"""The thesis's toy problem in the plane: hard and soft balls, trained, evaluated and drawn.

    python -m trainers.toy --output_dir=runs/toy --seeds=10

trains PGD-AT, UDR-PGD and variants of them with several seeds, attacks all test points with 200
steps at radius 2, and writes `toy.md`, `toy.json` and three pictures. Runs that are already trained
are not trained again. With --redraw_data each seed has training and test points of its own.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import ConfigDict

from keras_robust.core.atomic_files import write_json, write_text
from keras_robust.core.quiet_tensorflow import quiet_start
from keras_robust.experiments.flags import command_line
from keras_robust.experiments.flags.output_path import check_output
from keras_robust.experiments.measuring.pictures import write_pictures
from trainers import recipes
from trainers.recipes.toy import SIDE

if TYPE_CHECKING:
    from keras_robust.experiments.runs.loaded_run import LoadedRun

PROGRAM = "trainers.toy"
RADIUS, STEPS, STEP = 2.0, 200, 0.1  # of the attack, in the plane
DRAWN_STEPS = 20  # of the trajectories
HARD, SOFT, CONTROL = "PGD-AT", "UDR-PGD", "PGD-AT, radius 1.5"
# Name -> recipe, and the fields that are changed.
TRAININGS: dict[str, tuple[str, dict[str, Any]]] = {
    HARD: ("toy/pgd_at", {}),
    CONTROL: ("toy/pgd_at", {"ball.radius": 1.5 / SIDE}),
    SOFT: ("toy/udr_pgd_at", {}),
    "UDR-PGD, tau = step": ("toy/udr_pgd_at", {"defense.options.tau": STEP / SIDE}),
    "UDR-PGD, tau = 4 steps": ("toy/udr_pgd_at", {"defense.options.tau": 4 * STEP / SIDE}),
    "UDR-PGD, lambda from 0.1": ("toy/udr_pgd_at", {"defense.options.dual_initial_value": 0.1}),
    "UDR-PGD, lambda from 2": ("toy/udr_pgd_at", {"defense.options.dual_initial_value": 2.0}),
    "UDR-PGD, linf distance": ("toy/udr_pgd_at", {"defense.options.dual_distance": "linf"}),
    "UDR-PGD, lambda held at 0": (
        "toy/udr_pgd_at",
        {"defense.options.dual_initial_value": 0.0, "defense.options.dual_learning_rate": 0.0},
    ),
    # A step along the gradient has the square of the scale of the plane, the step back only one.
    "UDR-PGD, gradient push": (
        "toy/udr_pgd_at",
        {
            "defense.options.push": "gradient",
            "defense.options.step_size": STEP / SIDE**2,
            "defense.options.tau": 2 * STEP / SIDE,
            "defense.options.dual_initial_value": SIDE,
            "defense.options.dual_learning_rate": 0.02 * SIDE**2,
        },
    ),
}


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_string(
        "output_dir", None, "Directory of all runs and results.", flag_values=values
    )
    flags.DEFINE_integer(
        "seeds", 10, "Number of seeds of each training.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer(
        "epochs", 30, "Number of epochs of each training.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_bool(
        "redraw_data",
        False,
        "Draw training and test points for each seed; by default all seeds have the same points.",
        flag_values=values,
    )


def config(name: str, seed: int, epochs: int, redraw_data: bool = False) -> ConfigDict:
    """The recipe of one of `TRAININGS`; with `redraw_data` its points are drawn by the seed.

    Example:
        >>> config(CONTROL, seed=1, epochs=2).ball.radius
        0.075
    """
    recipe, changes = TRAININGS[name]
    chosen = recipes.load(recipe)
    chosen.seed, chosen.epochs = seed, epochs
    if redraw_data:
        chosen.dataset.name = f"toy/{seed}"
    with chosen.unlocked():
        chosen.update_from_flattened_dict(changes)
    return chosen


def run(
    directory: Path, seeds: int, epochs: int, command: str = "", *, redraw_data: bool = False
) -> dict[str, Any]:
    """Trains, evaluates and draws.

    Args:
        directory: the directory of all runs and results.
        seeds: number of seeds of each training.
        epochs: number of epochs of each training.
        command: the command of the user, for the files.
        redraw_data: whether each seed has points of its own.

    Returns:
        The contents of `toy.json`: clean and robust accuracies by training, over the seeds.

    Raises:
        ValueError, OSError: a user error.
    """
    with quiet_start():
        from keras_robust.experiments.measuring import toy_figures
        from keras_robust.experiments.recipes import build

        command_line.initialize_devices()
    found: dict[str, Any] = {}
    trained: dict[str, list[LoadedRun]] = {}
    for name in TRAININGS:
        recipes_of = [config(name, seed, epochs, redraw_data) for seed in range(seeds)]
        trained[name] = runs = [_train(directory, name, one, command) for one in recipes_of]
        clean, robust = map(list, zip(*map(_accuracies, runs), strict=True))
        found[name] = {"clean": clean, "robust": robust}
        print(_row(name, clean, robust), flush=True)
    about = {"seeds": seeds, "epochs": epochs, "redraw_data": redraw_data}
    document = {"command": command, **about, "trainings": found}
    write_json(directory / "toy.json", document)
    write_text(directory / "toy.md", table(found, command))
    shown = [n for n in (HARD, CONTROL, SOFT, "UDR-PGD, lambda held at 0") if n in trained]
    # The dual variable of the gradient push is of another scale.
    soft = {n: runs for n, runs in trained.items()
            if n.startswith(SOFT) and "held" not in n and "push" not in n}  # fmt: skip
    first = trained[HARD][0]
    splits = first.splits
    attacked = build.robust_model(recipes.load("toy/standard"), splits.info, len(splits.train))
    attacked.fit(splits.train, epochs=1, verbose=0)
    pictures = {
        "boundaries": toy_figures.decision_regions({name: trained[name][0] for name in shown}),
        "trajectories": toy_figures.trajectories(first, attacked.classifier, DRAWN_STEPS),
        "dual": toy_figures.dual_variables(soft),
    }
    write_pictures(directory, pictures)
    return document


def _train(directory: Path, name: str, recipe: ConfigDict, command: str) -> LoadedRun:
    from keras_robust.experiments.runs.loaded_run import load_run
    from keras_robust.experiments.training import train_run

    words = name.lower().replace(",", "").replace("=", "").replace(".", "_").split()
    drawn = ["redrawn"] if recipe.dataset.name != "toy" else []
    path = directory / "runs" / "_".join([*words, *drawn, str(recipe.seed)])
    train_run.train(recipe, path, resume=True, command=command, verbose=0, log=lambda line: None)
    return load_run(path, "last")


def _accuracies(run: LoadedRun) -> tuple[float, float]:
    """Clean and robust accuracy."""
    from keras_robust.experiments.measuring.evaluate_run import EvaluationPlan, evaluate_run

    options = {"steps": STEPS, "step_size": STEP / SIDE}
    report = evaluate_run(run, EvaluationPlan(options=options, radius=RADIUS / SIDE, radii=()))
    return report.clean_accuracy, report.worst_case_accuracy


def table(found: dict[str, Any], command: str) -> str:
    """The accuracies as Markdown, mean and standard deviation over the seeds.

    Example:
        >>> rows = table({"PGD-AT": {"clean": [1.0, 1.0], "robust": [0.7, 0.8]}}, "x").splitlines()
        >>> rows[2]
        '| PGD-AT | 100.0% ± 0.0 | 75.0% ± 7.1 |'
    """
    lines = [
        f"| training | clean accuracy | accuracy under PGD-{STEPS}, radius {RADIUS:g} |",
        "|---|---|---|",
        *(_row(name, both["clean"], both["robust"]) for name, both in found.items()),
    ]
    return "\n".join(lines) + f"\n\nCommand: `{command}`\n"


def _row(name: str, clean: list[float], robust: list[float]) -> str:
    return f"| {name} | {_spread(clean)} | {_spread(robust)} |"


def _spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1%} ± {100 * deviation:.1f}"


def resume_hint() -> str:
    """How to resume an interrupted program."""
    return f"finished trainings are kept. Resume with: {command_line.command(PROGRAM)}"


def main(_: list[str]) -> None:
    """Runs the program."""
    values = flags.FLAGS
    directory = check_output(command_line.required(values, "output_dir", "runs/toy"))
    command = command_line.command(PROGRAM)
    run(directory, values.seeds, values.epochs, command, redraw_data=values.redraw_data)
    print(f"Written: {directory / 'toy.md'}, toy.json and three pictures")


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags, resume_hint=resume_hint)
