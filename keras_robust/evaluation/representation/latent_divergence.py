"""A callback that logs the divergence of the latent space after each epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack, check_attack
from keras_robust.core.classifier import as_forward, classifier_of, features_of
from keras_robust.core.graphs import compiled
from keras_robust.core.validation import check_integer
from keras_robust.evaluation.representation.class_divergence import Divergence, over_batches
from keras_robust.evaluation.running.batching import arrays

# Logged after each epoch; the first is the ratio of the other two.
LOGGED = ("r_div", "intra_divergence", "inter_divergence")


class LatentDivergence(keras.callbacks.Callback):
    """Logs R-DIV over the training, as `r_div`, `intra_divergence` and `inter_divergence`.

    They are measured with the weights in training, as `keras_robust.evaluation.divergence` does on
    a single batch. Put it before callbacks that read the logs.

    Args:
        data: images and labels, as `fit` takes them; best those of validation.
        attack: crafts the attacked images; None for the validation attack of a robust model.
        images: the number of images to attack, the first ones.
        every: number of epochs between two measurements.
        seed: seed of the attack.

    Raises:
        TypeError: not an attack; in training, a model without features.
        ValueError: a number below 1, no data; in training, a model without a validation attack, or
            images without two of a class and two classes.

    Example:
        >>> import keras_robust as kr
        >>> train, validation, _ = kr.data.load("digits", batch_size=64, limit=200)
        >>> model = kr.defenses.pgd_at(kr.models.mlp((8, 8, 1), 10), kr.LinfBall(0.1), steps=1)
        >>> model.compile(optimizer="adam")
        >>> log = LatentDivergence(validation, images=20)
        >>> history = model.fit(train, epochs=1, callbacks=[log], verbose=0).history
        >>> len(history["r_div"])
        1

    Reference: Bui et al., "Understanding and Achieving Efficient Robustness with Adversarial
    Supervised Contrastive Learning" (2021), Figure 2b.
    """

    def __init__(
        self,
        data: Any,
        attack: Attack | None = None,
        *,
        images: int = 256,
        every: int = 1,
        seed: int = 0,
    ):
        super().__init__()
        if attack is not None:
            check_attack("LatentDivergence: attack", attack)
        check_integer("LatentDivergence: images", images, 1)
        check_integer("LatentDivergence: every", every, 1)
        self.attack, self.every, self.seed = attack, every, seed
        x, y, _ = arrays(data, images)
        self._x, self._y = tf.constant(x), tf.constant(y)
        self._latents: Callable[[], tuple[tf.Tensor, tf.Tensor]] | None = None

    def set_model(self, model: keras.Model) -> None:
        """Takes the model, and compiles the attack on it once."""
        if model is not self.model:
            attack = self.attack or getattr(model, "validation_attack", None)
            if attack is None:
                raise ValueError(
                    "LatentDivergence: the model has no validation attack; expected `attack`, such "
                    "as `keras_robust.attacks.pgd(ball)`."
                )
            classifier = classifier_of(model)
            forward, craft = as_forward(classifier), attack.compiled(classifier)
            features = compiled(lambda images: features_of(forward(images)))
            self._latents = lambda: (
                features(self._x),
                features(craft(self._x, self._y, seed=self.seed)),
            )
        super().set_model(model)

    def measure(self) -> Divergence:
        """The divergences with the present weights."""
        if self._latents is None:
            raise ValueError("LatentDivergence: there is no model yet; expected a call of `fit`.")
        return over_batches([(*self._latents(), self._y)])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Measures and logs the divergences."""
        if (epoch + 1) % self.every == 0 and logs is not None:
            found = self.measure()
            logs.update(zip(LOGGED, (found.ratio, found.intra, found.inter), strict=True))
