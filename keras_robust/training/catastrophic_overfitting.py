"""A callback that notices catastrophic overfitting of single-step adversarial training."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.pgd import pgd
from keras_robust.core.batches import read_batches
from keras_robust.core.graphs import compiled
from keras_robust.core.types import Images, Labels
from keras_robust.core.validation import check_integer, check_number
from keras_robust.training.robust_model import RobustModel

# Logged at the end of each epoch if weights may be restored: 1 if they were, else 0.
WEIGHTS_RESTORED = "weights_restored"
_Values = list[tuple[keras.Variable, np.ndarray]]


class CatastrophicOverfitting(keras.callbacks.Callback):
    """Compares the accuracy under the single step of training with that under PGD.

    A model that is trained with a single step may lose its robustness within an epoch, while its
    accuracy under that step rises. If the difference of the two accuracies exceeds the threshold at
    the end of an epoch, the callback warns; it may then restore the weights of the last epoch that
    was good, and end the training. Put it before callbacks that save weights.

    Both accuracies are logged, as `single_step_accuracy` and `pgd_accuracy`; with `restore` also
    `weights_restored`, 0 or 1. Restored are weights, batch-norm statistics and the optimizer's
    moments and averages; counts of steps go on, and with them schedules and random starts. A
    training that is resumed (`initial_epoch`) measures the weights that it begins with.

    Args:
        data: images and labels, as `fit` takes them; best those of validation.
        images: the number of images to attack, the first ones.
        threshold: the largest difference of a good epoch, in [0, 1].
        steps: number of steps of PGD.
        restore: whether to restore the weights of the last good epoch.
        stop: whether to end the training.

    Raises:
        ValueError: a number out of range; in training, an attack of more than one step.
        TypeError: in training, a model that is not a `RobustModel`.

    Example:
        >>> import keras_robust as kr
        >>> train, validation, _ = kr.data.load("digits", batch_size=64)
        >>> model = kr.defenses.n_fgsm(kr.models.mlp((8, 8, 1), classes=10), kr.LinfBall(0.1))
        >>> model.compile(optimizer="adam")
        >>> check = CatastrophicOverfitting(validation, images=64)
        >>> history = model.fit(train, epochs=1, callbacks=[check], verbose=0).history
        >>> sorted(name for name in history if name not in model.metrics_names)
        ['pgd_accuracy', 'single_step_accuracy']

    Reference: Wong et al., "Fast is better than free: Revisiting adversarial training" (2020), who
    compare with PGD on a few training images.
    """

    def __init__(
        self,
        data: Any,
        *,
        images: int = 256,
        threshold: float = 0.25,
        steps: int = 10,
        restore: bool = False,
        stop: bool = False,
    ):
        super().__init__()
        check_integer("CatastrophicOverfitting: images", images, 1)
        check_number("CatastrophicOverfitting: threshold", threshold, most=1)
        check_integer("CatastrophicOverfitting: steps", steps, 2)
        self.threshold = threshold
        self.steps = steps
        self.restore = restore
        self.stop = stop
        self._batches = [(tf.constant(x), tf.constant(y)) for x, y in read_batches(data, images)]
        self._good: _Values = []
        self._good_epoch = -1
        self._count: Callable[..., tf.Tensor] | None = None
        self._begun = False

    def set_model(self, model: keras.Model) -> None:
        """Takes the model, whose training attack is checked."""
        if model is not self.model:
            check_single_step(model)
            self._count, self._good, self._good_epoch = _counter(model, self.steps), [], -1
        super().set_model(model)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Makes the next epoch the first one."""
        self._begun = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Remembers the weights of a training that is resumed, if they are good."""
        if epoch and not self._begun and not self._good and self.restore:
            single_step, multi_step = self.accuracies()
            if single_step - multi_step <= self.threshold:
                self._remember(epoch - 1)
        self._begun = True

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Measures and logs both accuracies, and acts on them."""
        logs = {} if logs is None else logs
        single_step, multi_step = self.accuracies()
        logs.update(single_step_accuracy=single_step, pgd_accuracy=multi_step)
        if self.restore:
            logs[WEIGHTS_RESTORED] = 0.0
        if single_step - multi_step <= self.threshold:
            self._remember(epoch)
            return
        actions = [self._restore(logs)] if self.restore else []
        if self.stop:
            self.model.stop_training = True
            actions.append("The training ends.")
        warnings.warn(
            f"Catastrophic overfitting in epoch {epoch + 1}: the model classifies "
            f"{single_step:.0%} of the images correctly under the single step of training, and "
            f"{multi_step:.0%} under PGD-{self.steps}. {' '.join(actions)} Train with more noise, "
            "with grad_align, in a smaller ball, or with several steps.".replace("  ", " "),
            stacklevel=2,
        )

    def accuracies(self) -> tuple[float, float]:
        """The accuracies under the single step of training and under PGD, at the present radius."""
        if self._count is None:
            raise ValueError("The callback has no model yet; expected one, which `fit` sets.")
        radius = self.model.attack_at(self.model.step, tf.float32).ball.radius
        radius = tf.cast(tf.convert_to_tensor(radius), tf.float32)
        counts = [self._count(x, y, radius).numpy() for x, y in self._batches]
        single_step, multi_step = sum(counts) / sum(len(y) for _, y in self._batches)
        return float(single_step), float(multi_step)

    def _remember(self, epoch: int) -> None:
        if self.restore:
            self._good = [(v, np.copy(v.numpy())) for v in _state(self.model)]
            self._good_epoch = epoch

    def _restore(self, logs: dict[str, float]) -> str:
        """Restores the last good weights; says what was done."""
        if not self._good:
            return "No epoch before was good, so the weights stay."
        for variable, value in self._good:
            variable.assign(value)
        logs[WEIGHTS_RESTORED] = 1.0
        return f"The weights of epoch {self._good_epoch + 1} are restored."


def check_single_step(model: Any) -> None:
    """Raises unless a model is trained with a single gradient step.

    Raises:
        TypeError: not a `RobustModel`.
        ValueError: an attack of another number of steps, or none.
    """
    if not isinstance(model, RobustModel):
        raise TypeError(
            f"The model is a {type(model).__name__}; expected a `keras_robust.RobustModel`, such "
            "as `keras_robust.defenses.n_fgsm(classifier, ball)`."
        )
    attack = model.attack
    steps = None if attack is None else attack.gradient_steps
    if steps != 1:
        found = "does not attack" if not steps else f"takes {steps} steps"
        raise ValueError(
            f"Catastrophic overfitting is that of training with a single step, and this training "
            f"{found}; expected a defense such as n_fgsm, or steps=1."
        )


def _counter(model: RobustModel, steps: int) -> Callable[..., tf.Tensor]:
    """A function that counts the images that are classified correctly under both attacks."""
    single_step: Attack = model.attack  # type: ignore[assignment]
    attacks = (single_step, pgd(single_step.ball, steps))
    classifier = model.classifier

    @compiled
    def count(x: Images, y: Labels, radius: tf.Tensor) -> tf.Tensor:
        found = []
        for attack in attacks:
            logits = classifier(attack.at_radius(radius)(classifier, x, y), training=False)[
                "logits"
            ]
            is_correct = tf.equal(tf.argmax(logits, axis=1, output_type=y.dtype), y)
            found.append(tf.reduce_sum(tf.cast(is_correct, tf.int32)))
        return tf.stack(found)

    return count


def _state(model: RobustModel) -> list[keras.Variable]:
    """The weights, and the optimizer's variables except its counters and its learning rate."""
    slots = [v for v in model.optimizer.variables if len(v.shape)]
    return [*(v for v in model.weights if v is not model.step), *slots]
