"""The thesis's problem in the plane: hard and soft balls, trained, attacked and drawn.

    python -m trainers.toy --output_dir=runs/toy --seeds=10

trains PGD-AT and UDR-PGD, variants of them too, with several seeds, attacks all test points with
200 steps at radius 2, and writes `toy.md`, `toy.json` and three pictures. What is already trained
is not trained again.
"""

from __future__ import annotations

import shlex
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from keras_robust.core.atomic_files import write_json, write_text
from keras_robust.core.quiet_tensorflow import quiet_start
from keras_robust.experiments.flags import command_line
from keras_robust.experiments.runs.pictures import write_pictures
from trainers import recipes
from trainers.recipes.toy import SIDE

if TYPE_CHECKING:
    from keras_robust.experiments.runs.loaded_run import LoadedRun

PROGRAM = "trainers.toy"
RADIUS, STEPS, STEP = 2.0, 200, 0.1  # of the attack that judges, in the plane
EXTENT = (-5.0, 9.0, -4.0, 4.0)  # what the pictures show of the plane
SHOWN, SHOWN_STEPS = 4, 20  # points of a cluster whose ways are drawn, and how far
HARD, SOFT, CONTROL = "PGD-AT", "UDR-PGD", "PGD-AT, radius 1.5"
# Name -> recipe, and what is changed of it.
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
}
# The attacks that are drawn: title, multiplier and temperature in steps; None for a hard ball.
DRAWN = (
    ("PGD", None, None),
    ("UDR, lambda 1, tau = 2 steps", 1.0, 2),
    ("UDR, lambda 0.1, tau = 2 steps", 0.1, 2),
    ("UDR, lambda 0.1, tau = step / 4", 0.1, 0.25),
)


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_string("output_dir", "runs/toy", "Everything is written here.", flag_values=values)
    flags.DEFINE_integer("seeds", 10, "Of each training.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("epochs", 30, "Of each training.", lower_bound=1, flag_values=values)


def config(name: str, seed: int, epochs: int) -> ConfigDict:
    """The recipe of one of `TRAININGS`.

    Example:
        >>> config(CONTROL, seed=1, epochs=2).ball.radius
        0.075
    """
    recipe, changes = TRAININGS[name]
    chosen = recipes.load(recipe)
    chosen.seed, chosen.epochs = seed, epochs
    with chosen.unlocked():
        chosen.update_from_flattened_dict(changes)
    return chosen


def run(directory: Path, seeds: int, epochs: int, command: str = "") -> dict[str, Any]:
    """Trains, judges and draws.

    Args:
        directory: where everything is written.
        seeds: how often each is trained.
        epochs: of each training.
        command: what the user typed, to be kept.

    Returns:
        What `toy.json` holds: for each training its clean and robust accuracies over the seeds.

    Raises:
        ValueError, OSError: the directory cannot be used.
    """
    found: dict[str, Any] = {}
    first: dict[str, LoadedRun] = {}
    for name in TRAININGS:
        clean, robust = [], []
        for seed in range(seeds):
            loaded_run = _trained(directory, name, seed, epochs, command)
            first.setdefault(name, loaded_run)
            accuracies = _judged(loaded_run)
            clean.append(accuracies[0])
            robust.append(accuracies[1])
        found[name] = {"clean": clean, "robust": robust}
        print(_row(name, clean, robust), flush=True)
    document = {"command": command, "seeds": seeds, "epochs": epochs, "trainings": found}
    write_json(directory / "toy.json", document)
    write_text(directory / "toy.md", table(found, command))
    _draw(directory, first)
    return document


def _trained(directory: Path, name: str, seed: int, epochs: int, command: str) -> LoadedRun:
    from keras_robust.experiments.runs.loaded_run import load_run
    from keras_robust.experiments.training import train_run

    words = name.lower().replace(",", "").replace("=", "").replace(".", "_").split()
    path = directory / "runs" / "_".join([*words, str(seed)])
    train_run.train(
        config(name, seed, epochs), path, resume=True, command=command, verbose=0, say=_nothing
    )
    return load_run(path, "last")


def _nothing(_: str) -> None:
    """Says nothing: there are many trainings."""


def _judged(loaded_run: LoadedRun) -> tuple[float, float]:
    from keras_robust.experiments.runs.evaluate_run import EvaluationPlan, evaluate_run

    settings = {"steps": STEPS, "step_size": STEP / SIDE}
    report = evaluate_run(
        loaded_run, EvaluationPlan(settings=settings, radius=RADIUS / SIDE, radii=())
    )
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


def _draw(directory: Path, first: dict[str, LoadedRun]) -> None:
    """The three pictures, of the first seed."""
    import keras_robust as kr
    from keras_robust.data.toy import to_plane

    x, y = (part.numpy() for part in first[HARD].test_images(None))
    points = to_plane(x)
    names = [n for n in (HARD, CONTROL, SOFT, "UDR-PGD, lambda held at 0") if n in first]
    duals = {
        name: [row["dual"] for row in one.run.rows()]
        for name, one in first.items()
        if name.startswith(SOFT) and "held" not in name
    }
    pictures = {
        "boundaries": kr.plots.decision_regions(
            [kr.plots.Panel(name, points, y) for name in names],
            [_field(first[name].model) for name in names],
            EXTENT,
            ("A", "B"),
        ),
        "trajectories": _trajectories(first[HARD].splits, points, y),
        "dual": kr.plots.training_curves(duals, "dual variable"),
    }
    write_pictures(directory, pictures)


def _trajectories(splits: Any, points: np.ndarray, labels: np.ndarray) -> Any:
    """Steps from the points themselves, against a network that was trained for one epoch."""
    import keras_robust as kr
    from keras_robust.attacks.crafting.step_rules import SoftBallStep
    from keras_robust.data.toy import to_image, to_plane
    from keras_robust.experiments.recipes import build

    model = build.robust_model(recipes.load("toy/standard"), splits.info, len(splits.train))
    model.fit(splits.train, epochs=1, verbose=0)
    parts = (labels == 0, (labels == 1) & (points[:, 0] < 4), points[:, 0] > 4)
    chosen = np.concatenate([np.flatnonzero(part)[:SHOWN] for part in parts])
    hard = kr.attacks.pgd(kr.LinfBall(1 / SIDE), SHOWN_STEPS, STEP / SIDE)
    panels = []
    for title, multiplier, tau in DRAWN:
        rule = hard.step_rule
        if multiplier is not None:
            rule = SoftBallStep(STEP / SIDE, multiplier, tau * STEP / SIDE)
        attack = kr.replace(hard, step_rule=rule, initialization=kr.initialization.AtInput())
        paths = kr.evaluation.trajectory(
            attack, model.classifier, to_image(points[chosen]), labels[chosen]
        )
        panels.append(kr.plots.Panel(title, points[::8], labels[::8], to_plane(paths), radius=1.0))
    return kr.plots.decision_regions(
        panels, [_field(model.classifier)] * len(panels), EXTENT, ("A", "B")
    )


def _field(model: Any) -> np.ndarray:
    """The probability of class B over the extent, `[rows, columns]`."""
    from keras_robust.data.toy import to_image

    xs, ys = np.linspace(*EXTENT[:2], 141), np.linspace(*EXTENT[2:], 81)
    grid = np.stack(np.meshgrid(xs, ys), axis=-1)
    logits = np.asarray(model(to_image(grid.reshape(-1, 2)), training=False)["logits"])
    return (1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))).reshape(grid.shape[:2])


def main(_: list[str]) -> int:
    """Runs the toy problem; what the user can mend ends it with one sentence."""
    values = flags.FLAGS
    with quiet_start():
        from keras_robust.experiments.training import train_run  # noqa: F401  starts TensorFlow

        command_line.initialize_devices()
    command = f"python -m {PROGRAM} {shlex.join(sys.argv[1:])}".strip()
    directory = Path(values.output_dir)
    try:
        run(directory, values.seeds, values.epochs, command)
    except command_line.USER_ERRORS as error:
        command_line.fail(PROGRAM, error)
    print(f"Written: {directory / 'toy.md'}, toy.json and three pictures beside it")
    return 0


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
