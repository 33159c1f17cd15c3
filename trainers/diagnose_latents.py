"""Looks into the latent space of runs: R-DIV beside robust accuracy, t-SNE, loss surfaces.

    python -m trainers.diagnose_latents --run=runs/a,runs/b --output_dir=runs/latents

attacks test images with PGD (flags as for `trainers.evaluate`), and writes `latents.md` and
`latents.json` with the divergences of each run, and how large the perturbations are that it was
trained on at the end; and pictures of its latents and of the loss around its first test images.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from keras_robust.core.atomic_files import write_json, write_text
from keras_robust.core.quiet_tensorflow import quiet_start
from keras_robust.experiments.flags import attack_flags, command_line
from keras_robust.experiments.runs.pictures import write_pictures

if TYPE_CHECKING:
    import keras_robust as kr
    from keras_robust.experiments.runs.loaded_run import LoadedRun

PROGRAM = "trainers.diagnose_latents"
BATCH = 128  # images that are compared with each other, as in the paper
HEAD = (
    "| run | defense | clean accuracy | robust accuracy | R-DIV | within classes | between classes "
    "| to its own attacked image | R-DIV of clean images |\n|---|---|---|---|---|---|---|---|---|"
)
TRAINING_HEAD = (
    "| run | mean change of a pixel | largest | at most 0.9 radius | at most the radius "
    "| at most 1.1 radius |\n|---|---|---|---|---|---|"
)


@dataclasses.dataclass(frozen=True)
class LatentResult:
    """What is measured of a run.

    Args:
        run: its directory.
        defense: what it was trained with.
        clean_accuracy: on the images that were measured.
        robust_accuracy: on the same, attacked.
        divergence: of their latents.
        trained_on: the perturbations of the attack of training, as it stood; None without one.
    """

    run: str
    defense: str
    clean_accuracy: float
    robust_accuracy: float
    divergence: kr.evaluation.Divergence
    trained_on: kr.evaluation.Perturbations | None

    def row(self) -> str:
        """A line of the table."""
        d = self.divergence
        numbers = (d.ratio, d.intra, d.inter, d.own, d.clean_ratio)
        accuracies = f"{self.clean_accuracy:.1%} | {self.robust_accuracy:.1%}"
        cells = " | ".join(f"{number:.3f}" for number in numbers)
        return f"| {Path(self.run).name} | {self.defense} | {accuracies} | {cells} |"

    def row_of_training(self) -> str:
        """A line of the table of what training attacks with."""
        p = self.trained_on
        cells = ["-"] * 5 if p is None else [f"{p.l1:.4f}", f"{p.linf:.4f}"]
        cells += [] if p is None else [f"{share:.1%}" for share in p.within]
        return f"| {Path(self.run).name} | {' | '.join(cells)} |"


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_list("run", None, "A run directory, or several.", flag_values=values)
    flags.DEFINE_string("output_dir", None, "For the table and the pictures.", flag_values=values)
    flags.DEFINE_integer(
        "pictures",
        1,
        "Test images whose surroundings are drawn.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "points",
        300,
        "Test images whose latents are drawn; 0 for none, else 31 or more.",
        lower_bound=0,
        flag_values=values,
    )
    attack_flags.define(values)


def look(loaded_run: LoadedRun, attack: kr.Attack, limit: int | None, seed: int) -> LatentResult:
    """Measures a run.

    Args:
        loaded_run: the run.
        attack: how its test images are attacked.
        limit: use only so many of them; None for all.
        seed: of the attack.

    Returns:
        What was found.
    """
    import keras_robust as kr

    z = kr.evaluation.latents(
        loaded_run.model, loaded_run.splits.test, attack, limit=limit, seed=seed
    )
    right = z.predictions == z.labels
    return LatentResult(
        str(loaded_run.run.path),
        loaded_run.config.name,
        float(right[~z.adversarial].mean()),
        float((right[~z.adversarial] & right[z.adversarial]).mean()),
        kr.evaluation.divergence_of(z, BATCH),
        _trained_on(loaded_run, limit, seed),
    )


def _trained_on(loaded_run: LoadedRun, limit: int | None, seed: int) -> Any:
    import keras
    import tensorflow as tf

    import keras_robust as kr

    model = keras.saving.load_model(loaded_run.run.checkpoint(loaded_run.checkpoint), compile=False)
    if model.attack is None or model.attack.step_rule is None:
        return None
    attack = model.training_attack(tf.float32)
    return kr.evaluation.perturbations(
        model, loaded_run.splits.test, attack, limit=limit, seed=seed
    )


def draw(
    loaded_run: LoadedRun, attack: kr.Attack, directory: Path, points: int, pictures: int
) -> None:
    """Draws the latents of a run, and the loss around its first test images.

    Args:
        loaded_run: the run.
        attack: how its test images are attacked.
        directory: where the pictures go; they are called after the run.
        points: how many images' latents to draw; 0 for none.
        pictures: around how many images to draw the loss.
    """
    import keras_robust as kr

    names, figures = loaded_run.splits.info.class_names, {}
    if points:
        z = kr.evaluation.latents(loaded_run.model, loaded_run.splits.test, attack, limit=points)
        shown = ~z.adversarial | z.fooling
        figures["latents"] = kr.plots.latent_space(
            kr.evaluation.project(z.features[shown]),
            z.entropies[shown],
            z.labels[shown],
            z.adversarial[shown],
            names,
        )
    x, y = loaded_run.test_images(max(pictures, 1))
    # As far as a perturbation of all pixels goes, in the units of the surface's directions.
    extent = float(attack.ball.radius) * float(x[0].shape.num_elements()) ** 0.5
    for number in range(pictures):
        around = {
            "input": kr.evaluation.input_surface(loaded_run.model, x[number], y[number], extent),
            "latent": kr.evaluation.latent_surface(loaded_run.model, x[number], y[number], extent),
        }
        for space, found in around.items():
            figures[f"{space}_surface_{number}"] = kr.plots.loss_surface(
                found.steps, found.losses, found.labels, found.label, names
            )
    write_pictures(directory, figures, f"{loaded_run.run.path.name}_")


def run(values: flags.FlagValues, command: str = "") -> list[LatentResult]:
    """Looks into the runs that the flags name.

    Args:
        values: the parsed flags.
        command: what the user typed, to be kept.

    Returns:
        What was found of each.

    Raises:
        ValueError, OSError: what the user can mend, before the first attack where it can be known.
    """
    paths = command_line.required(values, "run", "runs/digits")
    directory = Path(command_line.required(values, "output_dir", "runs/latents"))
    with quiet_start():
        from keras_robust.experiments.runs.loaded_run import load_run

        command_line.initialize_devices()
    runs = [load_run(path, values.checkpoint, values.data_dir) for path in paths]
    settings = attack_flags.settings(values)
    attacks = [one.attack("pgd", settings, norm=values.norm, radius=values.radius) for one in runs]
    found = []
    for one, attack in zip(runs, attacks, strict=True):
        found.append(look(one, attack, values.limit, values.seed))
        print(found[-1].row(), flush=True)
        draw(one, attack, directory, values.points, values.pictures)
    document: dict[str, Any] = {
        "command": command,
        "runs": [dataclasses.asdict(one) for one in found],
    }
    write_json(directory / "latents.json", document)
    table = "\n".join([HEAD, *(one.row() for one in found)])
    trained_on = "\n".join([TRAINING_HEAD, *(one.row_of_training() for one in found)])
    write_text(directory / "latents.md", f"{table}\n\n{trained_on}\n\nCommand: `{command}`\n")
    return found


def main(_: list[str]) -> None:
    """Looks; what the user can mend ends it with one sentence."""
    values = flags.FLAGS
    try:
        run(values, f"python -m {PROGRAM} {shlex.join(sys.argv[1:])}")
    except command_line.USER_ERRORS as error:
        command_line.fail(PROGRAM, error)
    print(f"Written: {Path(values.output_dir) / 'latents.md'}, latents.json and pictures beside it")


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
