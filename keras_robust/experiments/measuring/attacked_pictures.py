"""Pictures of attacked images of a run: loss surfaces, contrastive pairs, gradients of UDR."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.crafting.step_rules import SoftBallStep
from keras_robust.core.classifier import features_of
from keras_robust.core.types import Ball
from keras_robust.evaluation.running.batching import attacked
from keras_robust.experiments.runs.loaded_run import LoadedRun
from keras_robust.models.loading import load_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEARCHED = 512  # test images among which those of both kinds are looked for


def surfaces_around(
    run: LoadedRun, x: tf.Tensor, y: int, ball: Ball, clean: tf.Tensor | None = None
) -> dict[str, Figure]:
    """Draws the loss around an image, and around its latent.

    Args:
        run: the run.
        x: the image, clean or attacked.
        y: its label.
        ball: the threat model, whose outline is drawn.
        clean: the clean image of an attacked one, around which is the threat model.

    Returns:
        The pictures of the spaces `"input"` and `"latent"`.
    """
    # Latents have no threat model: the square is as large as a random step to the edge of the
    # ball changes the latent, thrice.
    moved = ball.sample_sphere(x[None], tf.constant([0, 1]))
    both = features_of(run.model(tf.concat([x[None], moved], axis=0), training=False))
    change = float(tf.norm(tf.cast(both[1] - both[0], tf.float32)))
    around = {
        "input": kr.evaluation.input_surface(run.model, x, y, ball=ball, clean=clean),
        "latent": kr.evaluation.latent_surface(run.model, x, y, 3 * change or 1.0),
    }
    names = run.splits.info.class_names
    return {
        space: kr.plots.loss_surface(
            found.steps, found.losses, found.labels, found.label, names, ball=found.ball
        )
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
    found: dict[str, list[tuple[tf.Tensor, tf.Tensor, int]]] = {"fooling": [], "robust": []}
    if count:
        for x, x_adv, y in attacked(run.model, run.splits.test, attack, SEARCHED):
            predicted = run.model(x_adv, training=False)["logits"].numpy().argmax(axis=1)
            for pair in zip(x, x_adv, np.asarray(y), predicted, strict=True):
                clean, image, label, guess = pair
                kind = "robust" if guess == label else "fooling"
                found[kind].append((clean, image, int(label)))
            if min(map(len, found.values())) >= count:
                break
    figures: dict[str, Figure] = {}
    for kind, images in found.items():
        for number, (clean, image, label) in enumerate(images[:count]):
            drawn = surfaces_around(run, image, label, attack.ball, clean)
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
