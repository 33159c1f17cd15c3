"""Pictures of attacked images of a run: loss surfaces, contrastive pairs, gradients of UDR."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.crafting.step_rules import SoftBallStep
from keras_robust.evaluation.running.batching import attacked
from keras_robust.experiments.runs.loaded_run import LoadedRun
from keras_robust.models.loading import load_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEARCHED = 512  # test images among which those of both kinds are looked for


def surfaces_around(run: LoadedRun, x: tf.Tensor, y: int, radius: float) -> dict[str, Figure]:
    """Draws the loss around an image, and around its latent.

    Args:
        run: the run.
        x: the image, clean or attacked.
        y: its label.
        radius: the largest change of a pixel.

    Returns:
        The pictures of the spaces `"input"` and `"latent"`.
    """
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


def surfaces(run: LoadedRun, attack: kr.Attack, count: int) -> dict[str, Figure]:
    """Draws the loss around attacked test images that fool the model, and around others.

    Args:
        run: the run.
        attack: the attack on its test images.
        count: number of images of each kind, if there are as many among the first test images.

    Returns:
        Pictures such as `"input_surface_fooling_0"` and `"latent_surface_robust_0"`.
    """
    found: dict[str, list[tuple[tf.Tensor, int]]] = {"fooling": [], "robust": []}
    if count:
        for _, x_adv, y in attacked(run.model, run.splits.test, attack, SEARCHED):
            predicted = run.model(x_adv, training=False)["logits"].numpy().argmax(axis=1)
            for image, label, guess in zip(x_adv, np.asarray(y), predicted, strict=True):
                found["robust" if guess == label else "fooling"].append((image, int(label)))
            if min(map(len, found.values())) >= count:
                break
    figures: dict[str, Figure] = {}
    for kind, images in found.items():
        for number, (image, label) in enumerate(images[:count]):
            drawn = surfaces_around(run, image, label, float(attack.ball.radius))
            figures |= {f"{space}_surface_{kind}_{number}": one for space, one in drawn.items()}
    return figures


def pairs(run: LoadedRun, attack: kr.Attack, count: int, selection: str) -> Figure:
    """Draws the positives and negatives of the first test images.

    Args:
        run: the run.
        attack: the attack on its test images.
        count: number of anchors.
        selection: of the pairs.
    """
    found = kr.evaluation.contrast_pairs(run.model, run.splits.test, attack, selection)
    return kr.plots.contrast_pairs(
        found.images,
        found.predictions,
        found.adversarial,
        range(min(count, len(found.images) // 2)),
        found.positives,
        found.negatives,
        run.splits.info.class_names,
    )


def gradients(run: LoadedRun) -> dict[str, Figure]:
    """Draws the gradients of the training attack of UDR; nothing for other runs."""
    model = load_model(run.run.checkpoint(run.checkpoint))
    if not isinstance(getattr(model.attack, "step_rule", None), SoftBallStep):
        return {}
    attack = model.training_attack(tf.float32)
    found = kr.evaluation.gradient_strengths(model, run.splits.test, attack)
    return {"gradients": kr.plots.gradient_histogram(found.push, found.pull)}
