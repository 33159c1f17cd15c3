"""Runs every row of the README's comparison with other libraries on one small Keras 3 model.

    pip install '.[benchmark]' multiprocess && python benchmarks/comparison.py

Each cell is tried, not read: the exception is shown where a library refuses. A library that is not
installed is named as such.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections.abc import Callable
from importlib import metadata, util

import keras
import numpy as np

X = np.random.default_rng(0).random((32, 8, 8, 1), np.float32)
Y = np.arange(32) % 3
ONE_HOT = np.eye(3, dtype="float32")[Y]
Trial = tuple[str, Callable[[], object]]


def classifier(softmax: bool = False) -> keras.Model:
    """A small compiled classifier, on logits or with a softmax."""
    activation = "softmax" if softmax else None
    layers = [keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(3, activation)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not softmax)
    model.compile("adam", loss)
    return model


def art_trials() -> list[Trial]:
    """ART: attacks through both estimators, AutoAttack, Madry's trainer."""
    from art.attacks import evasion
    from art.defences.trainer import AdversarialTrainerMadryPGD
    from art.estimators.classification import KerasClassifier, TensorFlowV2Classifier

    def through_keras() -> KerasClassifier:
        return KerasClassifier(model=classifier(softmax=True), clip_values=(0, 1))

    def through_tensorflow() -> TensorFlowV2Classifier:
        return TensorFlowV2Classifier(
            classifier(),
            nb_classes=3,
            input_shape=(8, 8, 1),
            loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            optimizer=keras.optimizers.Adam(),
            clip_values=(0, 1),
        )

    pgd = {"eps": 0.1, "eps_step": 0.05, "max_iter": 3, "verbose": False}
    return [
        ("KerasClassifier, FGM", lambda: evasion.FastGradientMethod(through_keras()).generate(X)),
        (
            "KerasClassifier, PGD",
            lambda: evasion.ProjectedGradientDescent(through_keras(), **pgd).generate(X),
        ),
        ("KerasClassifier, AutoAttack", lambda: evasion.AutoAttack(through_keras()).generate(X, Y)),
        (
            "TensorFlowV2Classifier, PGD",
            lambda: evasion.ProjectedGradientDescent(through_tensorflow(), **pgd).generate(X),
        ),
        (
            "TensorFlowV2Classifier, AutoAttack",
            lambda: evasion.AutoAttack(through_tensorflow(), eps=0.1).generate(X[:4], Y[:4]),
        ),
        (
            "TensorFlowV2Classifier, Madry's trainer",
            lambda: AdversarialTrainerMadryPGD(
                through_tensorflow(), nb_epochs=1, eps=0.1, eps_step=0.05, max_iter=2
            ).fit(X, ONE_HOT),
        ),
    ]


def foolbox_trials() -> list[Trial]:
    """Foolbox: a TensorFlow function attacked by PGD."""
    import foolbox
    import tensorflow as tf

    def attack() -> object:
        model = foolbox.TensorFlowModel(classifier(), bounds=(0, 1))
        return foolbox.attacks.LinfPGD(steps=3)(model, tf.constant(X), tf.constant(Y), epsilons=0.1)

    return [("TensorFlowModel, LinfPGD", attack)]


def cleverhans_trials() -> list[Trial]:
    """CleverHans: a TensorFlow function attacked by PGD."""
    import tensorflow as tf
    from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

    return [
        (
            "projected_gradient_descent",
            lambda: projected_gradient_descent(classifier(), tf.constant(X), 0.1, 0.05, 3, np.inf),
        )
    ]


LIBRARIES = {
    "adversarial-robustness-toolbox": ("art", art_trials),
    "foolbox": ("foolbox", foolbox_trials),
    "cleverhans": ("cleverhans", cleverhans_trials),
}


def outcome(trial: Callable[[], object]) -> str:
    """`works`, or the exception in one line."""
    try:
        trial()
    except Exception as error:  # any refusal of a library is its cell
        text = " ".join(str(error).split())
        return f"{type(error).__name__}: {text[:80]}"
    return "works"


def main() -> None:
    """Prints the table."""
    print(f"Keras {keras.__version__}\n\n| library | version | what | outcome |\n|---|---|---|---|")
    for package, (module, trials) in LIBRARIES.items():
        if util.find_spec(module) is None:
            print(f"| {package} | not installed | | |", flush=True)
            continue
        version = metadata.version(package)
        for what, trial in trials():
            print(f"| {package} | {version} | {what} | {outcome(trial)} |", flush=True)


if __name__ == "__main__":
    main()
