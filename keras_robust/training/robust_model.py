"""The Keras model that trains robustly: one `train_step` for every defense."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.inputs import as_seed
from keras_robust.core import collectives, random
from keras_robust.core.config import register
from keras_robust.core.types import Images, Labels, Outputs, RobustLoss, Seed
from keras_robust.core.validation import check_integer
from keras_robust.losses.label_smoothing import check_smoothing, smoothed_labels
from keras_robust.training import distribution, label_mixing
from keras_robust.training.batch_checks import unpack_batch
from keras_robust.training.crafting_forward import crafting_forward
from keras_robust.training.distribution import Batch, Gradients
from keras_robust.training.keras_loop import KerasLoop
from keras_robust.training.label_mixing import Mixing, OtherLabels, check_mixing
from keras_robust.training.metric_trackers import MetricTrackers
from keras_robust.training.part_checks import check_parts
from keras_robust.training.radius_schedules import RadiusSchedule, check_radius_schedule
from keras_robust.training.training_loss import OutputsByKind, TrainingLoss
from keras_robust.training.weight_perturbation import AWP, check_weight_perturbation

# Folded into the seed of an evaluation, so that it does not repeat the noise of a training step.
_EVALUATION = 2**31 - 1
# Folded in for the radius, which is the same on all replicas.
_RADIUS = 2**31 - 3
_MIXING = 2**31 - 4


@register
class RobustModel(KerasLoop):
    """Trains a classifier on the adversarial examples that an attack crafts against it.

    One step is: craft, outputs, loss, gradient, update. Everything else is Keras: `compile`, `fit`,
    `evaluate`, callbacks, schedules, saving, mixed precision, and every strategy of `tf.distribute`
    (create the model inside its scope; batch norm is then synchronized).

    Logs `loss`, each of its weighted terms, `regularization` if layers add losses, `accuracy` on
    clean and `robust_accuracy` on adversarial images. Accuracies of training are those of the
    outputs that the loss used, in training mode; if the loss does not use clean outputs, the clean
    accuracy is measured in inference mode.

    `fit` infers the direction of what the model logs, so that `ModelCheckpoint` and `EarlyStopping`
    can monitor `val_robust_accuracy`. `export` writes the classifier alone.

    Args:
        classifier: a built functional model that maps images to `{"logits", "features"}`.
        attack: crafts the images to train on; None if the loss needs no adversarial images.
        loss: the robust loss.
        validation_attack: crafts the images of `evaluate` and of validation; default `attack`.
        crafting_mode: `"eval"`, or `"train"` to craft against the batch statistics and dropout of
            training (running statistics do not change either way; each replica uses the statistics
            of its own part).
        crafting_dtype: `"bfloat16"` runs the attack of training in half precision, on a second copy
            of the layers. Weights, loss, update and validation stay in full precision.
        radius_warmup: number of first steps over which the radius of the training attack grows
            linearly from 0. With a large radius, a loss without a clean term may otherwise never
            leave the constant prediction, which no attack can make worse.
        radius_schedule: the radius of the training attack at each step, such as
            `keras_robust.training.RandomRadius(low, high)`; its step size keeps its ratio to the
            radius, a warm-up multiplies it. None for the radius of the ball.
        label_smoothing: weight of the uniform distribution in the labels of the loss, in [0, 1). It
            reaches every `keras_robust.losses.cross_entropy` of the loss, in validation too; not
            the attack, probabilities that weight other terms, and certified worst cases.
        mixing: mixes the images of a training batch, such as `keras_robust.data.cutmix()`. The loss
            is the weighted mean of the losses of both labels; accuracies count the label with the
            larger weight, which the attack has too (Differs: Rebuffi et al. attack both).
        microbatches: number of parts of a batch that are crafted and differentiated one after the
            other, like gradient accumulation, to save memory. Batch norm sees the parts.
        weight_perturbation: `keras_robust.AWP(gamma)` computes the gradient at perturbed weights,
            for each microbatch; None computes it at the weights themselves.
        seed: an integer; with the step's number it gives each step a seed of its own.
        name: the name of the Keras model.

    Raises:
        TypeError, ValueError: a classifier without the contract, a loss that needs an attack
            without one, an invalid option.

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

    # Names of what `state_logs` returns, for defenses with state.
    state_names: tuple[str, ...] = ()
    # Whether the defense bounds the worst case of its outputs, for a loss that requires "bounds".
    has_bounds: bool = False
    # Kinds of outputs that `further_outputs` computes, for a loss that requires them.
    further_kinds: frozenset[str] = frozenset()

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
        radius_schedule: RadiusSchedule | None = None,
        label_smoothing: float = 0.0,
        mixing: Mixing | None = None,
        microbatches: int = 1,
        weight_perturbation: AWP | None = None,
        seed: int = 0,
        name: str | None = None,
    ):
        # Layers cast their own inputs. Casting images to half precision before the attack would
        # move them by more than a small radius allows.
        super().__init__(autocast=False, name=name)
        check_parts(
            classifier, attack, validation_attack, loss, self.has_bounds, self.further_kinds
        )
        check_integer("seed", seed, None)
        check_integer("radius_warmup", radius_warmup)
        check_radius_schedule(radius_schedule)
        check_smoothing("label_smoothing", label_smoothing)
        check_mixing(mixing, loss)
        check_integer("microbatches", microbatches, 1)
        check_weight_perturbation(weight_perturbation)
        distribution.synchronize_batch_norm(classifier)
        self._crafting_forward = crafting_forward(classifier, crafting_mode, crafting_dtype)
        self.classifier = classifier
        self.attack = attack
        self.robust_loss = loss
        self.validation_attack = validation_attack or attack
        self.crafting_mode = crafting_mode
        self.crafting_dtype = crafting_dtype
        self.radius_warmup = int(radius_warmup)
        self.radius_schedule = radius_schedule
        self.label_smoothing = float(label_smoothing)
        self.mixing = mixing
        self.microbatches = int(microbatches)
        self.weight_perturbation = weight_perturbation
        self.seed = int(seed)
        # Not the optimizer's count, which does not change while gradients are accumulated, and when
        # mixed precision skips a step.
        self.step = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="int64",
            trainable=False,
            aggregation="only_first_replica",
            name="step",
        )
        self._training_loss = TrainingLoss(
            classifier,
            loss,
            self.microbatches,
            weight_perturbation,
            further=self.further_outputs if self.further_kinds & loss.required_outputs else None,
        )
        self._trackers = MetricTrackers(
            loss.term_names, (*loss.logged_statistics, *self.state_names)
        )
        self.directions = self._trackers.directions
        self.built = True  # the classifier is built, and there is nothing else

    def call(self, x: Images, training: bool | None = None) -> Outputs:
        """The classifier's outputs, `{"logits", "features"}`."""
        return self.classifier(x, training=training)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The trackers of the loss, its terms and both accuracies, then those of `compile`."""
        own = self._trackers.metrics
        known = {id(metric) for metric in own}
        # Keras also has a tracker called "loss", which stays at zero here.
        return own + [m for m in super().metrics if id(m) not in known and m.name != "loss"]

    def get_metrics_result(self) -> dict[str, Any]:
        """The values of the trackers that were updated since they were reset."""
        results = super().get_metrics_result()
        # An accuracy of `compile` has the same name as the model's own, which counts.
        results.update({metric.name: metric.result() for metric in self._trackers.metrics})
        if tf.executing_eagerly():
            for name in self._trackers.not_updated():
                results.pop(name, None)
        return results

    def evaluated_names(self) -> tuple[str, ...]:
        """The names of the losses, statistics and accuracies that `evaluate` logs."""
        missing = {
            *self.state_names,  # logged in training only
            *(() if self.classifier.losses else ("regularization",)),
            *(() if self.validation_attack is not None else ("robust_accuracy",)),
        }
        return tuple(m.name for m in self._trackers.metrics if m.name not in missing)

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Exports the classifier, as `keras.Model.export` does: images -> `{"logits", ...}`."""
        self.classifier.export(filepath, *args, **kwargs)

    def craft(self, x: Images, y: Labels, seed: Seed | None = None) -> Images:
        """Crafts the adversarial images of a training step; a hook for defenses with state.

        Args:
            x: images `[batch, ...]`.
            y: labels `[batch]`.
            seed: of the random start; default this step's own.
        """
        seed = self._fold(self.step) if seed is None else seed
        return self.training_attack(x.dtype)(self._crafting_forward, x, y, seed=seed)

    def training_attack(self, dtype: tf.DType) -> Attack:
        """The attack of this step; a hook for defenses whose attack depends on their state."""
        return self.attack_at(self.step, dtype)

    def attack_at(self, step: int | tf.Tensor, dtype: tf.DType) -> Attack:
        """The training attack at the radius of a step, counted from 0."""
        if self.attack is None:
            raise ValueError("The model has no training attack; expected one to craft images.")
        radius = self.attack.ball.radius
        if self.radius_schedule is not None:
            seed = random.fold_in(as_seed(self.seed), _RADIUS)
            seed = random.fold_in(seed, tf.cast(step, tf.int32))
            radius = tf.cast(self.radius_schedule.radius(tf.convert_to_tensor(step), seed), dtype)
        elif not self.radius_warmup:
            return self.attack
        if self.radius_warmup:
            fraction = (tf.cast(step, dtype) + 1) / self.radius_warmup
            radius = tf.minimum(fraction, 1.0) * radius
        return self.attack.at_radius(radius)

    def training_loss(self) -> TrainingLoss:
        """The loss of this step; a hook for defenses whose loss depends on their state."""
        return self._training_loss

    def further_outputs(
        self, outputs: OutputsByKind, x: Images, y: Labels, x_adv: Images, training: bool
    ) -> Outputs:
        """What a loss reads besides the outputs of both kinds of images; a hook.

        It runs where the gradient is recorded. The result joins the adversarial outputs.

        Args:
            outputs: the outputs of the `"clean"` images, None if not required, and of the
                `"adversarial"` ones.
            x: images `[batch, ...]`.
            y: labels `[batch]`.
            x_adv: adversarial images.
            training: whether the classifier runs in training mode.
        """
        raise NotImplementedError(f"{type(self).__name__} declares {sorted(self.further_kinds)}.")

    def after_gradients(self, y: Labels, outputs: OutputsByKind) -> None:
        """Called with the outputs of each part of a training batch; a hook for state."""

    def state_logs(self) -> dict[str, tf.Tensor]:
        """The state of a defense, logged in training under its `state_names`; a hook."""
        return {}

    def after_update(self, x: Images, x_adv: Images) -> None:
        """Called after the update of the weights; a hook for defenses with state.

        The batch is that of step `self.step - 1`, as the step has been counted.
        """

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Craft, outputs, loss, gradient, update."""
        self.check_trainable()
        batch, others = self._unpack(data), None
        if self.mixing is not None:
            seed = random.fold_in(self._fold(self.step), _MIXING)
            batch, others = label_mixing.mixed(self.mixing, batch, seed)
        # On replicas, a step begins after the last batch of a data set of unknown size, and fails:
        # counters would have counted it, as they do not depend on the batch.
        with tf.control_dependencies([batch[0]]):
            return self.jitted(self._train_on)(*batch, others)

    def _train_on(
        self, x: Images, y: Labels, weight: tf.Tensor | None, others: OtherLabels | None = None
    ) -> dict[str, tf.Tensor]:
        """A step of training on a checked batch."""
        size = collectives.global_sum(tf.shape(y)[0])
        variables = self.trainable_variables
        gradients: Gradients = []
        crafted: list[Images] = []
        logs: dict[str, tf.Tensor] = {}
        for part in range(self.microbatches):
            # One part after the other, or no memory is saved.
            with tf.control_dependencies([g for g in gradients if g is not None]):
                batch = distribution.microbatch((x, y, weight), part, self.microbatches)
                second = label_mixing.part_of(others, part, self.microbatches)
            logs, x_adv, added = self._differentiate(batch, second, size, part)
            crafted += [] if x_adv is None else [x_adv]
            gradients = distribution.added(gradients, added) if part else added
        distribution.apply_gradients(self.optimizer, gradients, variables)
        self.step.assign_add(1)
        if crafted:
            x_adv = tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *crafted)
            self.after_update(x, x_adv)
        return logs

    def _differentiate(
        self, batch: Batch, others: OtherLabels | None, size: tf.Tensor, part: int
    ) -> tuple[dict[str, tf.Tensor], Images | None, Gradients]:
        """Logs, adversarial images and gradients of a part of a batch of `size` images."""
        x, y, _ = batch
        x_adv = None
        if "adversarial" in self.robust_loss.required_outputs:
            seed = self._fold(self.step)
            if self.microbatches > 1:
                seed = random.fold_in(seed, part)
            x_adv = self.craft(x, y, seed)
        with smoothed_labels(self.label_smoothing):  # not those of the attack
            gradients, outputs, means = self.training_loss().gradients(
                batch, x_adv, size, self.optimizer, others
            )
        self.after_gradients(y, outputs)
        if outputs["clean"] is None:
            # For the accuracy only: before the update, like the robust accuracy, and in inference
            # mode, so that batch-norm statistics do not change.
            outputs["clean"] = self.classifier(x, training=False)
        return self._log(batch, outputs, {**means, **self.state_logs()}), x_adv, gradients

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """The loss and both accuracies, under the validation attack."""
        return self.jitted(self._evaluate_on)(*self._unpack(data))

    def _evaluate_on(self, x: Images, y: Labels, weight: tf.Tensor | None) -> dict[str, tf.Tensor]:
        """A step of evaluation on a checked batch."""
        x_adv = None
        if self.validation_attack is not None:
            seed = self._fold(_EVALUATION)
            x_adv = self.validation_attack(self.classifier, x, y, seed=seed)
        batch = (x, y, weight)
        with smoothed_labels(self.label_smoothing):
            outputs, means = self._training_loss.measure(batch, x_adv)
        return self._log(batch, outputs, means)

    def check_batch(self, x: Any, y: Any) -> None:
        """Raises for images and labels that the model does not take."""
        self._unpack((x, y))

    def _unpack(self, data: Any) -> Batch:
        attack = self.validation_attack
        bounds = None if attack is None else attack.ball.bounds
        classes = self.classifier.output["logits"].shape[-1]
        return unpack_batch(data, bounds, self.robust_loss, classes)

    def _log(
        self, batch: Batch, outputs: OutputsByKind, means: dict[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """Updates the trackers and the metrics of `compile`; returns their values."""
        x, y, weight = batch
        updated = self._trackers.update(y, means, outputs)
        results = self.compute_metrics(x, y, outputs["clean"]["logits"], weight)
        own = {metric.name for metric in self._trackers.metrics}
        return {**updated, **{name: value for name, value in results.items() if name not in own}}

    def _fold(self, number: int | tf.Tensor) -> tf.Tensor:
        """The seed of a step, different on each replica."""
        seed = random.fold_in(as_seed(self.seed), tf.cast(number, tf.int32))
        if collectives.replicas() == 1:
            return seed
        return random.fold_in(seed, collectives.replica_id())

    def parts(self) -> dict[str, Any]:
        """The arguments of the constructor that rebuild the model."""
        return {
            "classifier": self.classifier,
            "attack": self.attack,
            "loss": self.robust_loss,
            **{option.name: getattr(self, option.name) for option in model_options()},
        }

    def rebuilt(self, **changes: Any) -> RobustModel:
        """A model of the same parts except `changes`, not compiled; the classifier is shared.

        Args:
            **changes: arguments of the constructor.
        """
        return type(self)(**{**self.parts(), **changes})

    def get_config(self) -> dict[str, Any]:
        """The parts of the model, serialized by Keras."""
        return {
            name: keras.saving.serialize_keras_object(part) if hasattr(part, "get_config") else part
            for name, part in self.parts().items()
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> RobustModel:
        """Rebuilds the model from the result of `get_config`."""
        decoded = {
            name: keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)
            if isinstance(value, dict)
            else value
            for name, value in config.items()
        }
        return cls(**decoded)


def model_options() -> tuple[inspect.Parameter, ...]:
    """The keyword parameters of `RobustModel`, which every defense takes too.

    Example:
        >>> [option.name for option in model_options()][:3]
        ['validation_attack', 'crafting_mode', 'crafting_dtype']
    """
    parameters = inspect.signature(RobustModel.__init__).parameters.values()
    return tuple(p for p in parameters if p.kind == p.KEYWORD_ONLY)
