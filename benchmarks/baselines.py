"""PGD on the same model by other libraries, each called as in its documentation.

A library that is not installed is skipped; `pip install -e '.[benchmark]'` installs all.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

Crafter = Callable[[], Any]


class Task(NamedTuple):
    """The common work: PGD from a uniform start in an Linf ball, on images in [0, 1]."""

    logits: keras.Model
    x: tf.Tensor
    y: tf.Tensor
    radius: float
    step_size: float
    steps: int


def installed(task: Task) -> Iterator[tuple[str, Crafter]]:
    """Name and crafter of each installed implementation; prints which are not installed."""
    for package, crafters in _LIBRARIES.items():
        if importlib.util.find_spec(package) is None:
            print(f"{package} is not installed and skipped: pip install -e '.[benchmark]'")
        else:
            yield from crafters(task).items()


def _art(task: Task) -> dict[str, Crafter]:
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import TensorFlowV2Classifier

    classes = task.logits.output_shape[-1]

    def crafter(model: Any) -> Crafter:
        classifier = TensorFlowV2Classifier(
            model=model,
            nb_classes=classes,
            input_shape=tuple(task.x.shape[1:]),
            loss_object=keras.losses.CategoricalCrossentropy(from_logits=True),
            clip_values=(0.0, 1.0),
        )
        attack = ProjectedGradientDescent(
            classifier,
            norm=np.inf,
            eps=task.radius,
            eps_step=task.step_size,
            max_iter=task.steps,
            num_random_init=1,
            batch_size=int(task.x.shape[0]),
            verbose=False,
        )
        x, y = task.x.numpy(), np.eye(classes, dtype="float32")[task.y.numpy()]
        return lambda: attack.generate(x, y)

    return {"ART": crafter(task.logits), "ART, compiled model": crafter(_compiled(task.logits))}


def _foolbox(task: Task) -> dict[str, Crafter]:
    import foolbox

    attack = foolbox.attacks.LinfPGD(abs_stepsize=task.step_size, steps=task.steps)

    def crafter(model: Any) -> Crafter:
        wrapped = foolbox.TensorFlowModel(model, bounds=(0, 1), device="/CPU:0")
        return lambda: attack(wrapped, task.x, task.y, epsilons=task.radius)[1]

    return {
        "Foolbox": crafter(task.logits),
        "Foolbox, compiled model": crafter(_compiled(task.logits)),
    }


def _cleverhans(task: Task) -> dict[str, Crafter]:
    from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

    def attack(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return projected_gradient_descent(
            task.logits,
            x,
            task.radius,
            task.step_size,
            task.steps,
            np.inf,
            clip_min=0.0,
            clip_max=1.0,
            y=y,
            rand_init=True,
        )

    compiled = tf.function(attack, autograph=False)
    return {
        "CleverHans": lambda: attack(task.x, task.y),
        "CleverHans, compiled": lambda: compiled(task.x, task.y),
    }


def _compiled(model: keras.Model) -> Callable[..., tf.Tensor]:
    """The forward pass as a `tf.function`: faster than what the libraries document."""
    return tf.function(lambda x, training=False: model(x, training=training), autograph=False)


_LIBRARIES = {"art": _art, "foolbox": _foolbox, "cleverhans": _cleverhans}
