"""Diagnoses the latent space of a run: divergence, size of perturbations, loss surfaces."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

import keras_robust as kr
from keras_robust.core.atomic_files import write_json, write_text
from keras_robust.core.types import Ball
from keras_robust.experiments.measuring import attacked_pictures
from keras_robust.experiments.measuring.pictures import write_pictures
from keras_robust.experiments.runs.loaded_run import LoadedRun
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


_RADIUS_HEAD = "| run | radius | robust accuracy | R-DIV |\n|---|---|---|---|"


@dataclasses.dataclass(frozen=True)
class RadiusResult:
    """Diagnostics of a run at one radius.

    Args:
        radius: the radius of the attack.
        robust_accuracy: accuracy under the attack.
        divergence: divergence of the latents.
    """

    radius: float
    robust_accuracy: float
    divergence: kr.evaluation.Divergence


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
        over_radius: the same attack at other radii.
    """

    run: str
    defense: str
    clean_accuracy: float
    robust_accuracy: float
    divergence: kr.evaluation.Divergence
    trained_on: kr.evaluation.Perturbations | None
    over_radius: tuple[RadiusResult, ...] = ()

    def radius_rows(self) -> list[str]:
        """The rows of the table over radius."""
        name = Path(self.run).name
        return [
            f"| {name} | {one.radius:.4g} | {one.robust_accuracy:.1%} | "
            f"{one.divergence.ratio:.3f} |"
            for one in self.over_radius
        ]

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


def diagnose(
    run: LoadedRun,
    attack: kr.Attack,
    limit: int | None,
    seed: int,
    radii: Sequence[float] = (),
) -> LatentResult:
    """Measures the latents of a run.

    Args:
        run: the run.
        attack: the attack on its test images.
        limit: number of test images; None for all.
        seed: seed of the attack.
        radii: further radii, at which the attack is run as well.
    """
    z, robust_accuracy = _measured(run, attack, limit, seed)
    over_radius = []
    for radius in radii:
        at_radius, accuracy = _measured(run, attack.at_radius(radius), limit, seed)
        found = kr.evaluation.divergence_of(at_radius, BATCH)
        over_radius.append(RadiusResult(float(radius), accuracy, found))
    return LatentResult(
        str(run.run.path),
        run.config.name,
        float((z.predictions == z.labels)[~z.adversarial].mean()),
        robust_accuracy,
        kr.evaluation.divergence_of(z, BATCH),
        training_perturbations(run, limit, seed),
        tuple(over_radius),
    )


def _measured(
    run: LoadedRun, attack: kr.Attack, limit: int | None, seed: int
) -> tuple[kr.evaluation.Latents, float]:
    """The latents under an attack, and the robust accuracy."""
    z = kr.evaluation.latents(run.model, run.splits.test, attack, limit=limit, seed=seed)
    correct = z.predictions == z.labels
    return z, float((correct[~z.adversarial] & correct[z.adversarial]).mean())


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


def draw(
    run: LoadedRun,
    attack: kr.Attack,
    directory: Path,
    points: int,
    pictures: int,
    pairs: int = 0,
    selection: str = "leaked",
) -> None:
    """Draws the latents of a run, and the loss around its clean and attacked test images.

    Attacked images are those that fool the model, and those that do not. Of a run of UDR, the
    gradients that push and pull its training images are drawn too.

    Args:
        run: the run.
        attack: the attack on its test images.
        directory: the directory of the pictures; their names begin with the run's.
        points: number of images whose latents are drawn; 0 for none.
        pictures: number of images of each kind around which the loss is drawn.
        pairs: number of images whose positives and negatives are drawn; 0 for none.
        selection: of the pairs, as for `keras_robust.evaluation.contrast_pairs`.
    """
    figures = {}
    if points:
        z = kr.evaluation.latents(run.model, run.splits.test, attack, limit=points)
        figures["latents"] = _latents(run, z, z.adversarial)
    for number in range(pictures):
        drawn = surface_pictures(run, attack.ball, number)
        figures |= {f"{space}_surface_{number}": figure for space, figure in drawn.items()}
    figures |= attacked_pictures.surfaces(run, attack, pictures)
    if pairs:
        figures["pairs"] = attacked_pictures.pairs(run, attack, pairs, selection)
    figures |= attacked_pictures.gradients(run)
    write_pictures(directory, figures, f"{run.run.path.name}_")


def latent_picture(run: LoadedRun, attack: kr.Attack, points: int, kind: str = "fooling") -> Figure:
    """Draws the latents of clean test images, and of the attacked ones of a kind.

    Args:
        run: the run.
        attack: the attack on its test images.
        points: number of images.
        kind: `"fooling"` the model, or `"robust"`.
    """
    z = kr.evaluation.latents(run.model, run.splits.test, attack, limit=points)
    return _latents(run, z, z.fooling if kind == "fooling" else z.adversarial & ~z.fooling)


def _latents(run: LoadedRun, z: kr.evaluation.Latents, attacked: np.ndarray) -> Figure:
    """The latents of all clean images, and of some attacked ones, with the fooled ones marked."""
    shown = ~z.adversarial | attacked
    return kr.plots.latent_space(
        kr.evaluation.project(z.features[shown]),
        z.entropies[shown],
        z.labels[shown],
        z.adversarial[shown],
        run.splits.info.class_names,
        fooled=z.fooling[shown],
    )


def surface_pictures(run: LoadedRun, ball: Ball, number: int) -> dict[str, Figure]:
    """Draws the loss around a test image.

    Args:
        run: the run.
        ball: the threat model, whose outline is drawn.
        number: number of the image.

    Returns:
        The pictures of the spaces `"input"` and `"latent"`.
    """
    x, y = (part[number] for part in run.test_images(number + 1))
    return attacked_pictures.surfaces_around(run, x, y, ball)


def write_tables(directory: Path, results: Sequence[LatentResult], command: str) -> None:
    """Writes the results as `latents.md` and `latents.json`, and draws R-DIV over radius."""
    write_json(
        directory / "latents.json",
        {"command": command, "runs": [dataclasses.asdict(one) for one in results]},
    )
    table = "\n".join([_HEAD, *(one.row() for one in results)])
    training = "\n".join([_TRAINING_HEAD, *(one.training_row() for one in results)])
    radii = [row for one in results for row in one.radius_rows()]
    tables = [table, training] + (["\n".join([_RADIUS_HEAD, *radii])] if radii else [])
    text = "\n\n".join([*tables, f"Command: `{command}`"])
    write_text(directory / "latents.md", text + "\n")
    if radii:
        curves = {
            Path(one.run).name: (
                [at.radius for at in one.over_radius],
                [at.divergence.ratio for at in one.over_radius],
            )
            for one in results
        }
        figure = kr.plots.series(curves, "Radius (in the units of the images)", "R-DIV")
        write_pictures(directory, {"divergence_over_radius": figure})
