"""The Keras model that trains robustly: one `train_step` for every defense."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack, check_attack
from keras_robust.attacks.crafting.inputs import as_seed, check_batch, check_labels
from keras_robust.core import collectives
from keras_robust.core.classifier import contract_of
from keras_robust.core.config import register
from keras_robust.core.types import Images, Labels, Outputs, RobustLoss, Seed
from keras_robust.core.validation import check_integer
from keras_robust.losses.robust_loss import check_loss
from keras_robust.training import distribution
from keras_robust.training.crafting_forward import crafting_forward
from keras_robust.training.metric_trackers import MetricTrackers
from keras_robust.training.training_loss import TrainingLoss
from keras_robust.training.weight_perturbation import AWP, check_weight_perturbation

# Folded into the seed of an evaluation, so that it does not repeat the noise of a training step.
_EVALUATION = 2**31 - 1


@register
class RobustModel(distribution.DistributedModel):
    """Trains a classifier on the adversarial examples that an attack crafts against it.

    One step is: craft, outputs, loss, gradient, update. Everything else is Keras: `compile` with an
    optimizer, `fit`, `evaluate`, callbacks, schedules, saving, mixed precision, and every strategy
    of `tf.distribute` (make the model inside its scope; batch norm is then synchronised). Crafting
    runs in inference mode and leaves batch-norm statistics alone.

    Logs `loss`, each of its terms, `accuracy` on clean and `robust_accuracy` on adversarial images.
    Terms carry their weights: `loss` is their sum, plus `regularization` where layers add losses.
    While training, accuracies are those of the outputs that the loss saw, in training mode; a clean
    accuracy that the loss had no need of is measured in inference mode.

    `ModelCheckpoint` and `EarlyStopping` on `val_robust_accuracy` need `mode="max"`: Keras knows
    the direction of its own metrics only.

    Args:
        classifier: a built functional model that maps images to `{"logits", "features"}`.
        attack: crafts the images to train on; None where the loss needs no adversarial images.
        loss: the robust loss.
        validation_attack: crafts the images of `evaluate` and of validation; default `attack`.
        crafting_mode: `"eval"`, or `"train"` to craft against the batch statistics and dropout of
            training (their running statistics are not touched either way; several replicas take
            the statistics of their own parts).
        crafting_dtype: `"bfloat16"` runs the attack of training in half precision, with a second
            copy of the layers, where the processor has units for it. Weights, loss, update and
            validation are not touched.
        radius_warmup: over so many first steps the training attack's radius grows linearly from 0
            to its own. Where the radius is large, a loss without a clean term may otherwise never
            leave the constant prediction that no attack can make worse.
        microbatches: into how many parts a step cuts its batch, to craft and differentiate one
            after the other: as gradient accumulation, it saves memory. Batch norm sees the parts.
        weight_perturbation: `keras_robust.AWP(gamma)` takes the gradient where the weights are
            worse (of each microbatch, where there are several); None where they are.
        seed: of all random starts; with the number of the step it gives each step its own.

    Raises:
        TypeError, ValueError: a classifier without the contract, an attack that the loss needs, an
            option that is none.

    Example:
        >>> import keras, numpy as np
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((2, 2, 1), classes=3, hidden=(4,))
        >>> model = kr.defenses.pgd_at(classifier, kr.LinfBall(0.1), steps=2)
        >>> model.compile(optimizer=keras.optimizers.SGD(0.1))
        >>> x, y = np.full([6, 2, 2, 1], 0.5, "float32"), np.arange(6) % 3
        >>> sorted(model.fit(x, y, batch_size=6, verbose=0).history)
        ['accuracy', 'adversarial', 'loss', 'robust_accuracy']
    """

    OPTIONS = (
        "crafting_mode",
        "crafting_dtype",
        "radius_warmup",
        "microbatches",
        "weight_perturbation",
        "seed",
        "name",
    )
    # What `state_logs` returns, for defenses with state.
    state_names: tuple[str, ...] = ()

    def __init__(
        self,
        classifier: keras.Model,
        attack: Attack | None,
        loss: RobustLoss,
        *,
        validation_attack: Attack | None = None,
        crafting_mode: str = "eval",
        crafting_dtype: str = "float32",
        radius_warmup: int = 0,
        microbatches: int = 1,
        weight_perturbation: AWP | None = None,
        seed: int = 0,
        **kwargs: Any,
    ):
        # Layers cast their own inputs. Casting whole images to half precision before the attack
        # sees them would move them by more than a small radius allows.
        super().__init__(autocast=False, **kwargs)
        _check_classifier(classifier)
        check_loss(loss)
        for name, part in (("attack", attack), ("validation_attack", validation_attack)):
            if part is not None:
                check_attack(name, part)
        if attack is None and "adversarial" in loss.required_outputs:
            raise ValueError(
                f"The loss {type(loss).__name__} needs adversarial images, and no attack was "
                "given. Pass one, such as `keras_robust.attacks.pgd(ball)`."
            )
        _check_sources(attack, validation_attack or attack, loss)
        check_integer("seed", seed, None)
        check_integer("radius_warmup", radius_warmup)
        check_integer("microbatches", microbatches, 1)
        check_weight_perturbation(weight_perturbation)
        distribution.synchronize_batch_norm(classifier)
        self._crafting_forward = crafting_forward(classifier, crafting_mode, crafting_dtype)
        self.classifier = classifier
        self.attack: Any = attack
        self.robust_loss = loss
        self.validation_attack: Any = validation_attack or attack
        self.crafting_mode = crafting_mode
        self.crafting_dtype = crafting_dtype
        self.radius_warmup = int(radius_warmup)
        self.microbatches = int(microbatches)
        self.weight_perturbation = weight_perturbation
        self.seed = int(seed)
        # Not the optimizer's count, which stands still while gradients are accumulated, and when
        # mixed precision skips a step.
        self.step = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="int64",
            trainable=False,
            aggregation="only_first_replica",
            name="step",
        )
        self._risk = TrainingLoss(classifier, loss, self.microbatches, weight_perturbation)
        self._trackers = MetricTrackers(
            loss.term_names, (*loss.logged_statistics, *self.state_names)
        )
        self.built = True  # the classifier is: there is nothing left to build

    def call(self, x: Images, training: bool | None = None) -> Outputs:
        """The classifier's outputs, `{"logits", "features"}`."""
        return self.classifier(x, training=training)

    def compile(self, optimizer: Any = "rmsprop", loss: None = None, **kwargs: Any) -> None:
        """Configures training as `keras.Model.compile` does; the loss is the model's own.

        Args:
            optimizer: a Keras optimizer, or its name.
            loss: None; it is here to be refused.
            **kwargs: as for Keras (`metrics`, `steps_per_execution`, `run_eagerly`, ...). Metrics
                see the clean logits. `jit_compile` is off unless asked for: XLA slows crafting
                down on a CPU.

        Raises:
            ValueError: a `loss` was passed.
        """
        if loss is not None:
            raise ValueError(
                f"compile() received loss={loss!r}, but the loss of a robust model is "
                "part of it. Leave `loss` out, and build the model with another robust loss."
            )
        kwargs.setdefault("jit_compile", False)
        super().compile(optimizer=optimizer, **kwargs)  # type: ignore[misc]
        with self.distribute_strategy.scope():
            distribution.check_optimizer(self.optimizer)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Trains as `keras.Model.fit` does."""
        if isinstance(x, tf.data.Dataset):
            # Keras would warn at every call that it shuffles no data set, which nobody asked.
            kwargs.setdefault("shuffle", False)
        return super().fit(x, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Measures as `keras.Model.evaluate` does; single numbers are floats."""
        # Keras before 3.13 hands out tensors.
        return keras.tree.map_structure(
            lambda value: float(value) if tf.is_tensor(value) and value.shape == () else value,
            super().evaluate(*args, **kwargs),
        )

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as it was when saved, with the optimizer's state to be filled."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The trackers of the loss, its terms and both accuracies, then those of `compile`."""
        own = self._trackers.metrics
        known = {id(metric) for metric in own}
        # Keras keeps a tracker called "loss" as well, which a loss of our own leaves at zero.
        return own + [m for m in super().metrics if id(m) not in known and m.name != "loss"]

    def get_metrics_result(self) -> dict[str, Any]:
        """The values of the trackers; after an epoch, of those that it fed."""
        results = super().get_metrics_result()
        if tf.executing_eagerly():
            for name in self._trackers.unfed():
                results.pop(name, None)
        return results

    def craft(self, x: Images, y: Labels, seed: Seed | None = None) -> Images:
        """The adversarial images of a training step; a hook for defenses with state.

        Args:
            x: images `[batch, ...]`.
            y: labels `[batch]`.
            seed: of the random start; by default this step's own.
        """
        seed = self._fold(self.step) if seed is None else seed
        return self.training_attack(x.dtype)(self._crafting_forward, x, y, seed=seed)

    def training_attack(self, dtype: tf.DType) -> Any:
        """The attack of this step; a hook for defenses whose attack depends on their state."""
        if not self.radius_warmup:
            return self.attack
        share = (tf.cast(self.step, dtype) + 1) / self.radius_warmup
        return self.attack.at_radius(tf.minimum(share, 1.0) * self.attack.ball.radius)

    def state_logs(self) -> dict[str, tf.Tensor]:
        """The state of a defense, to be logged while training under its `state_names`."""
        return {}

    def after_update(self, x: Images, x_adv: Images) -> None:
        """Called after the weights moved; a hook for defenses with state."""

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Craft, outputs, loss, gradient, update."""
        x, y, weight = self._unpack(data)
        size = collectives.global_sum(tf.shape(y)[0])
        variables = self.trainable_variables
        gradients: list[Any] = []
        crafted: list[Images] = []
        logs: dict[str, tf.Tensor] = {}
        for part in range(self.microbatches):
            # One part after the other, or nothing is saved.
            with tf.control_dependencies([g for g in gradients if g is not None]):
                batch = distribution.microbatch((x, y, weight), part, self.microbatches)
            logs, x_adv, added = self._differentiate(batch, size, part)
            crafted += [] if x_adv is None else [x_adv]
            gradients = distribution.added(gradients, added) if part else added
        distribution.apply_gradients(self.optimizer, gradients, variables)
        self.step.assign_add(1)
        if crafted:
            x_adv = tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *crafted)
            self.after_update(x, x_adv)
        return logs

    def _differentiate(
        self, batch: tuple[Any, ...], size: tf.Tensor, part: int
    ) -> tuple[dict[str, tf.Tensor], Images | None, list[Any]]:
        """Logs, adversarial images and gradients of a part of a batch of `size` images."""
        x, y, _ = batch
        x_adv = None
        if "adversarial" in self.robust_loss.required_outputs:
            seed = self._fold(self.step)
            if self.microbatches > 1:
                seed = tf.random.experimental.stateless_fold_in(seed, part)
            x_adv = self.craft(x, y, seed)
        gradients, outputs, means = self._risk.gradients(batch, x_adv, size, self.optimizer)
        if outputs["clean"] is None:
            # For the accuracy alone: before the weights move, as the robust accuracy is, and in
            # inference mode, so that no statistics move.
            outputs["clean"] = self.classifier(x, training=False)
        return self._log(batch, outputs, {**means, **self.state_logs()}), x_adv, gradients

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """The loss, and both accuracies, under the validation attack."""
        x, y, weight = self._unpack(data)
        x_adv = None
        if self.validation_attack is not None:
            seed = self._fold(_EVALUATION)
            x_adv = self.validation_attack(self.classifier, x, y, seed=seed)
        batch = (x, y, weight)
        outputs, means = self._risk.measure(batch, x_adv)
        return self._log(batch, outputs, means)

    def _unpack(self, data: Any) -> tuple[Images, Labels, tf.Tensor | None]:
        """Images, labels and sample weights, checked."""
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        x = distribution.checked_part(x)
        if y is None:
            raise ValueError(
                "The data has no labels; expected batches of (images, labels) or "
                "(images, labels, sample_weights)."
            )
        if weight is not None and self.robust_loss.batch_level:
            raise ValueError(
                "The data has sample weights (or `class_weight` was given), but the terms of the "
                "loss compare the images of a batch with each other, so that no image has a loss "
                "of its own to be weighted. Leave the weights out, and draw what is to count more "
                "often."
            )
        if y.shape.rank == 2 and y.shape[1] == 1:
            y = tf.squeeze(y, axis=1)  # the shape in which Keras feeds some label columns
        if self.validation_attack is None:
            return x, check_labels("Labels", y, x), weight
        bounds = self.validation_attack.ball.bounds
        x, y, _ = check_batch(x, y, None, bounds)
        if not tf.executing_eagerly():  # else they have been looked at
            # Images in [0, 255] would train without a complaint, against no attack to speak of.
            tf.debugging.Assert(
                tf.reduce_all((x >= bounds[0]) & (x <= bounds[1])),
                [
                    f"Images lie outside the ball's bounds {bounds}, or are NaN. Scale "
                    "them (divide uint8 images by 255), or give the ball other `bounds`. Range:",
                    tf.reduce_min(x),
                    tf.reduce_max(x),
                ],
            )
        return x, y, weight

    def _log(
        self, batch: tuple[Any, ...], outputs: dict[str, Any], means: dict[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """Updates the trackers, and the metrics of `compile`; returns what they stand at."""
        x, y, weight = batch
        fed = self._trackers.update(y, means, outputs)
        results = self.compute_metrics(x, y, outputs["clean"]["logits"], weight)
        own = {metric.name for metric in self._trackers.metrics}
        return {**fed, **{name: value for name, value in results.items() if name not in own}}

    def _fold(self, number: Any) -> tf.Tensor:
        """A seed for a number, on each replica another one."""
        seed = tf.random.experimental.stateless_fold_in(
            as_seed(self.seed), tf.cast(number, tf.int32)
        )
        if collectives.replicas() == 1:
            return seed
        return tf.random.experimental.stateless_fold_in(seed, collectives.replica_id())

    def parts(self) -> dict[str, Any]:
        """What the model was made of: the arguments that make it again."""
        return {
            "classifier": self.classifier,
            "attack": self.attack,
            "loss": self.robust_loss,
            "validation_attack": self.validation_attack,
            **{name: getattr(self, name) for name in self.OPTIONS},
        }

    def rebuilt(self, **changes: Any) -> RobustModel:
        """A model of the same parts but for some, not compiled; the classifier is shared.

        Args:
            **changes: arguments of the constructor.
        """
        return type(self)(**{**self.parts(), **changes})

    def get_config(self) -> dict[str, Any]:
        """The parts of the model, serialised by Keras."""
        return {
            name: keras.saving.serialize_keras_object(part) if hasattr(part, "get_config") else part
            for name, part in self.parts().items()
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> RobustModel:
        """Rebuilds the model that `get_config` described."""
        decoded = {
            name: keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)
            if isinstance(value, dict)
            else value
            for name, value in config.items()
        }
        return cls(**decoded)


def _check_sources(attack: Any, validation_attack: Any, loss: RobustLoss) -> None:
    """Refuses one batch per member of an ensemble where one batch is meant."""
    if validation_attack is not None and validation_attack.per_member:
        raise ValueError(
            f"The validation attack {validation_attack.name} crafts a batch on each member; "
            "expected an attack on the ensemble as a whole. Pass `validation_attack`, such as "
            "`keras_robust.attacks.pgd(ball)`."
        )
    if attack is not None and attack.per_member and not loss.per_member:
        raise ValueError(
            f"The attack {attack.name} crafts a batch on each member, of which the loss "
            f"{type(loss).__name__} has no use. Take the attack inside of it, or another loss."
        )


def _check_classifier(classifier: Any) -> None:
    outputs = contract_of(classifier)
    if not outputs or not {"logits", "features"} <= set(outputs):
        received = f"a model with outputs {sorted(outputs)}" if outputs else repr(classifier)
        raise TypeError(
            f"The classifier is {received}; expected a built functional model that returns "
            "{'logits', 'features'}. Wrap a Keras model of your own with "
            "`keras_robust.models.adapt(model)`."
        )
