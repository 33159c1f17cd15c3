"""The model of defenses that train on certified bounds."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from keras_robust import certification
from keras_robust.attacks.pgd import pgd
from keras_robust.certification.bounds import Bounds
from keras_robust.certification.bounds import margins as margins_by
from keras_robust.certification.ibp import lower_by_ibp
from keras_robust.certification.interval import Interval
from keras_robust.certification.layers.activation import Activation
from keras_robust.certification.network import Network
from keras_robust.certification.propagation import intervals_of
from keras_robust.certification.region import Region, region_around
from keras_robust.core.config import register, replace
from keras_robust.core.types import Ball, Images, Labels, Logits, Outputs
from keras_robust.losses.robust_loss import WorstCase
from keras_robust.training.certified.bounded_classifier import BoundedClassifier
from keras_robust.training.certified.initialization import initialize
from keras_robust.training.certified.radius_ramp import RadiusRamp
from keras_robust.training.certified.regularizer import BoundRegularizer
from keras_robust.training.defense_factory import RobustModelOptions, validated_by
from keras_robust.training.robust_model import RobustModel
from keras_robust.training.training_loss import TrainingLoss

if TYPE_CHECKING:
    from typing_extensions import Self


@register
class CertifiedModel(RobustModel):
    """A robust model that minimizes the loss of the worst case that certified bounds allow.

    It crafts nothing in training. The radius, the weight of the worst case and the penalty follow a
    ramp; validation and `evaluate` bound at the radius of the ball. Logs `verified_accuracy`, the
    fraction of images that are proven at that radius; in training also the present `radius`.

    Args:
        *args, **kwargs: arguments of `RobustModel`; the attack is None, the loss a `WorstCase`.
        bounds: the bounds of validation, of `keras_robust.certification`.
        ramp: the radius of training.
        regularizer: penalizes loose bounds during the ramp; None for no penalty.
    """

    state_names = ("radius",)
    has_bounds = True
    robust_loss: WorstCase

    def __init__(
        self,
        *args: Any,
        bounds: Bounds,
        ramp: RadiusRamp,
        regularizer: BoundRegularizer | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        if not isinstance(self.robust_loss, WorstCase):  # its weight follows the ramp
            raise TypeError(
                f"The loss is {self.robust_loss!r}; expected a `keras_robust.losses.WorstCase`."
            )
        self.bounds = bounds
        self.ramp = ramp
        self.regularizer = regularizer
        # In a tuple, or Keras would save its layers a second time.
        self._bounded = (BoundedClassifier(self.classifier),)
        self._training_loss.bounds = self._at_the_ball

    @classmethod
    def against(
        cls,
        classifier: keras.Model,
        ball: Ball,
        ramp: RadiusRamp,
        *,
        clean_weight: float,
        regularization: float,
        initialization: str | None,
        steps: int,
        options: RobustModelOptions,
        **own: Any,
    ) -> Self:
        """A model validated by IBP and PGD in a ball; the other arguments are those of `ibp`.

        Args:
            ramp: the radius of training.
            options: those of `RobustModel`.
            **own: arguments of a subclass.
        """
        model = cls(
            classifier,
            None,
            WorstCase(clean_weight),
            bounds=certification.ibp(ball),
            ramp=ramp,
            regularizer=BoundRegularizer(regularization) if regularization else None,
            **validated_by(options, pgd(ball, steps)),
            **own,
        )
        initialize(classifier, initialization, model.seed)
        return model

    def training_loss(self) -> TrainingLoss:
        """The loss at this step's radius and weight of the worst case."""
        share = self.ramp.share(self.step)
        weight = 1 - (1 - self.robust_loss.clean_weight) * share
        loss = replace(self.robust_loss, clean_weight=weight)
        return TrainingLoss(
            self._bounded[0].observed,
            loss,
            self.microbatches,
            self.weight_perturbation,
            functools.partial(self._on_the_ramp, share),
        )

    def state_logs(self) -> dict[str, tf.Tensor]:
        """The radius of this step."""
        return {"radius": self.ramp.radius * self.ramp.share(self.step)}

    def training_region(self, x: Images, y: Labels, share: tf.Tensor) -> Region:
        """Where the images of a training step may be; a hook.

        Args:
            x: images `[batch, ...]`.
            y: labels `[batch]`.
            share: the present radius divided by the largest one.
        """
        del y
        return region_around(x, self.bounds.ball.replace(radius=share * self.ramp.radius))

    def training_margins(
        self,
        network: Network,
        y: Labels,
        region: Region,
        intervals: Sequence[Interval],
        share: tf.Tensor,
    ) -> Logits:
        """Lower bounds of the margins in training, `[batch, classes]`; a hook.

        Args:
            network: the layers of the classifier.
            y: labels `[batch]`.
            region: where the perturbed images may be.
            intervals: of the output of each layer, by interval bound propagation.
            share: the present radius divided by the largest one.
        """
        del share
        lower = functools.partial(lower_by_ibp, intervals=intervals)
        return margins_by(lower, network, y, region)

    def parts(self) -> dict[str, Any]:
        """The arguments of the constructor that rebuild the model."""
        own = {"bounds": self.bounds, "ramp": self.ramp, "regularizer": self.regularizer}
        return {**super().parts(), **own}

    def _at_the_ball(
        self, clean: Outputs, x: Images, y: Labels, training: bool
    ) -> tuple[Outputs, Sequence[tf.Tensor]]:
        """The worst case at the radius of the ball."""
        del clean
        with self._bounded[0].in_float32() as bounded:
            margins = self.bounds(bounded, x, y, training=training)
        return {"logits": certification.worst_logits(margins)}, ()

    def _on_the_ramp(
        self, share: tf.Tensor, clean: Outputs, x: Images, y: Labels, training: bool
    ) -> tuple[Outputs, Sequence[tf.Tensor]]:
        """The worst case at a share of the largest radius, and the penalty."""
        del training
        region = self.training_region(x, y, share)
        with self._bounded[0].in_float32() as bounded:
            network = self._bounded[0].network(bounded, clean, x)
            intervals = intervals_of(network, region)
            margins = self.training_margins(network, y, region, intervals, share)
        outputs = {"logits": certification.worst_logits(margins)}
        if self.regularizer is None:
            return outputs, ()
        rectified = [
            network.inputs_of(node, intervals)[0]
            for node in network.nodes
            if isinstance(node.rule, Activation)
        ]
        return outputs, (self.regularizer(region.box, rectified, share),)
