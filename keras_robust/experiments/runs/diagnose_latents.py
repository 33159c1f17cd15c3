"""Diagnoses the latent space of a run: divergence, size of perturbations, loss surfaces."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow as tf

import keras_robust as kr
from keras_robust.core.atomic_files import write_json, write_text
from keras_robust.experiments.runs.loaded_run import LoadedRun
from keras_robust.experiments.runs.pictures import write_pictures
from keras_robust.models.loading import load_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH = 128  # images that are compared with each other, as in the paper
_HEAD = (
    "| run | defense | clean accuracy | robust accuracy | R-DIV | within classes | between classes "
    "| to its own attacked image | R-DIV of clean images |\n|---|---|---|---|---|---|---|---|---|"
)
_TRAINING_HEAD = (
    "| run | mean change of a pixel | largest | at most 0.9 radius | at most the radius "
    "| at most 1.1 radius |\n|---|---|---|---|---|---|"
)


@dataclasses.dataclass(frozen=True)
class LatentResult:
    """Diagnostics of a run.

    Args:
        run: the run directory.
        defense: name of its recipe.
        clean_accuracy: accuracy on the images that were measured.
        robust_accuracy: accuracy on the same images under the attack.
        divergence: divergence of their latents.
        trained_on: perturbations of the training's attack at its end; None without such an attack.
    """

    run: str
    defense: str
    clean_accuracy: float
    robust_accuracy: float
    divergence: kr.evaluation.Divergence
    trained_on: kr.evaluation.Perturbations | None

    def row(self) -> str:
        """A row of the table of latents."""
        d = self.divergence
        numbers = (d.ratio, d.intra, d.inter, d.own, d.clean_ratio)
        accuracies = f"{self.clean_accuracy:.1%} | {self.robust_accuracy:.1%}"
        cells = " | ".join(f"{number:.3f}" for number in numbers)
        return f"| {Path(self.run).name} | {self.defense} | {accuracies} | {cells} |"

    def training_row(self) -> str:
        """A row of the table of perturbations in training."""
        p = self.trained_on
        cells = ["-"] * 5 if p is None else [f"{p.l1:.4f}", f"{p.linf:.4f}"]
        cells += [] if p is None else [f"{fraction:.1%}" for fraction in p.within]
        return f"| {Path(self.run).name} | {' | '.join(cells)} |"


def diagnose(run: LoadedRun, attack: kr.Attack, limit: int | None, seed: int) -> LatentResult:
    """Measures the latents of a run.

    Args:
        run: the run.
        attack: the attack on its test images.
        limit: number of test images; None for all.
        seed: seed of the attack.
    """
    z = kr.evaluation.latents(run.model, run.splits.test, attack, limit=limit, seed=seed)
    correct = z.predictions == z.labels
    return LatentResult(
        str(run.run.path),
        run.config.name,
        float(correct[~z.adversarial].mean()),
        float((correct[~z.adversarial] & correct[z.adversarial]).mean()),
        kr.evaluation.divergence_of(z, BATCH),
        training_perturbations(run, limit, seed),
    )


def training_perturbations(
    run: LoadedRun, limit: int | None, seed: int
) -> kr.evaluation.Perturbations | None:
    """Measures the perturbations of a run's training attack on its test images.

    Args:
        run: the run.
        limit: number of test images; None for all.
        seed: seed of the attack.

    Returns:
        Their sizes; None if the training has no attack that moves by steps.
    """
    model = load_model(run.run.checkpoint(run.checkpoint))
    if model.attack is None or model.attack.step_rule is None:
        return None
    attack = model.training_attack(tf.float32)
    return kr.evaluation.perturbations(model, run.splits.test, attack, limit=limit, seed=seed)


def draw(run: LoadedRun, attack: kr.Attack, directory: Path, points: int, pictures: int) -> None:
    """Draws the latents of a run, and the loss around its first test images.

    Args:
        run: the run.
        attack: the attack on its test images.
        directory: the directory of the pictures; their names begin with the run's.
        points: number of images whose latents are drawn; 0 for none.
        pictures: number of images around which the loss is drawn.
    """
    figures = {}
    if points:
        figures["latents"] = latent_picture(run, attack, points)
    for number in range(pictures):
        drawn = surface_pictures(run, float(attack.ball.radius), number)
        figures |= {f"{space}_surface_{number}": figure for space, figure in drawn.items()}
    write_pictures(directory, figures, f"{run.run.path.name}_")


def latent_picture(run: LoadedRun, attack: kr.Attack, points: int) -> Figure:
    """Draws the latents of clean test images, and of those that the attack fools.

    Args:
        run: the run.
        attack: the attack on its test images.
        points: number of images.
    """
    z = kr.evaluation.latents(run.model, run.splits.test, attack, limit=points)
    shown = ~z.adversarial | z.fooling
    return kr.plots.latent_space(
        kr.evaluation.project(z.features[shown]),
        z.entropies[shown],
        z.labels[shown],
        z.adversarial[shown],
        run.splits.info.class_names,
    )


def surface_pictures(run: LoadedRun, radius: float, number: int) -> dict[str, Figure]:
    """Draws the loss around a test image.

    Args:
        run: the run.
        radius: the largest change of a pixel.
        number: number of the image.

    Returns:
        The pictures of the spaces `"input"` and `"latent"`.
    """
    x, y = (part[number] for part in run.test_images(number + 1))
    # The length of a perturbation of all pixels, in the units of the surface's directions.
    extent = radius * float(x.shape.num_elements()) ** 0.5
    around = {
        "input": kr.evaluation.input_surface(run.model, x, y, extent),
        "latent": kr.evaluation.latent_surface(run.model, x, y, extent),
    }
    names = run.splits.info.class_names
    return {
        space: kr.plots.loss_surface(found.steps, found.losses, found.labels, found.label, names)
        for space, found in around.items()
    }


def write_tables(directory: Path, results: Sequence[LatentResult], command: str) -> None:
    """Writes the results as `latents.md` and `latents.json`."""
    write_json(
        directory / "latents.json",
        {"command": command, "runs": [dataclasses.asdict(one) for one in results]},
    )
    table = "\n".join([_HEAD, *(one.row() for one in results)])
    training = "\n".join([_TRAINING_HEAD, *(one.training_row() for one in results)])
    write_text(directory / "latents.md", f"{table}\n\n{training}\n\nCommand: `{command}`\n")
