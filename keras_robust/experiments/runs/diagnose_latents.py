"""Diagnoses the latent space of a run: divergence, size of perturbations, loss surfaces."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

import keras_robust as kr
from keras_robust.core.atomic_files import write_json, write_text
from keras_robust.experiments.runs.loaded_run import LoadedRun
from keras_robust.experiments.runs.pictures import write_pictures
from keras_robust.models.loading import load_model

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
        _trained_on(run, limit, seed),
    )


def _trained_on(run: LoadedRun, limit: int | None, seed: int) -> kr.evaluation.Perturbations | None:
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
    names, figures = run.splits.info.class_names, {}
    if points:
        z = kr.evaluation.latents(run.model, run.splits.test, attack, limit=points)
        shown = ~z.adversarial | z.fooling
        figures["latents"] = kr.plots.latent_space(
            kr.evaluation.project(z.features[shown]),
            z.entropies[shown],
            z.labels[shown],
            z.adversarial[shown],
            names,
        )
    x, y = run.test_images(max(pictures, 1))
    # The length of a perturbation of all pixels, in the units of the surface's directions.
    extent = float(attack.ball.radius) * float(x[0].shape.num_elements()) ** 0.5
    for number in range(pictures):
        around = {
            "input": kr.evaluation.input_surface(run.model, x[number], y[number], extent),
            "latent": kr.evaluation.latent_surface(run.model, x[number], y[number], extent),
        }
        for space, found in around.items():
            figures[f"{space}_surface_{number}"] = kr.plots.loss_surface(
                found.steps, found.losses, found.labels, found.label, names
            )
    write_pictures(directory, figures, f"{run.run.path.name}_")


def write_tables(directory: Path, results: Sequence[LatentResult], command: str) -> None:
    """Writes the results as `latents.md` and `latents.json`."""
    write_json(
        directory / "latents.json",
        {"command": command, "runs": [dataclasses.asdict(one) for one in results]},
    )
    table = "\n".join([_HEAD, *(one.row() for one in results)])
    training = "\n".join([_TRAINING_HEAD, *(one.training_row() for one in results)])
    write_text(directory / "latents.md", f"{table}\n\n{training}\n\nCommand: `{command}`\n")
