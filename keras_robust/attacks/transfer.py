"""Transfer attacks: adversarial examples crafted on a source model, evaluated on another one."""

from __future__ import annotations

import dataclasses

import keras
import tensorflow as tf

from keras_robust.attacks.composite import Combination
from keras_robust.attacks.crafting.base import Attack, AttackWrapper, Round, check_attack
from keras_robust.core.classifier import as_forward, classifier_of
from keras_robust.core.config import replace, serializable
from keras_robust.core.types import Forward, Images, Labels


@serializable
class TransferAttack(AttackWrapper, Combination):
    """An attack crafted on a source model and evaluated on the model that it is called with.

    Gradients and queries are the source's. Of several rounds (restarts, targets) each image keeps
    the one that is worst for the model attacked; if a round aims at the likeliest classes, these
    are the attacked model's as well.

    Args:
        attack: the attack to run on the source.
        source: a Keras model, a `RobustModel`, or a function `images -> {"logits", ...}`, of the
            same images and classes. The configuration holds functions that are registered with
            Keras, but no models.
        source_name: the name of the source in reports; default the model's name.

    Raises:
        TypeError: not an attack, or not a model.
        ValueError: a per-member attack, or one that is crafted on another model already.

    Example:
        >>> from keras_robust import LinfBall, attacks
        >>> source = lambda x: {"logits": x}
        >>> attack = transfer(attacks.fgsm(LinfBall(0.25)), source, "a twin")
        >>> attack.name
        'FGSM from a twin'
        >>> x, y = tf.constant([[0.5, 0.5]]), tf.constant([0])
        >>> attack(lambda x: {"logits": -x}, x, y).numpy().tolist()  # as on the source
        [[0.25, 0.75]]

    Reference: Papernot et al., "Transferability in Machine Learning" (2016); Carlini et al., "On
    Evaluating Adversarial Robustness" (2019), section 4.3.
    """

    attack: Attack
    source: keras.Model | Forward = dataclasses.field(repr=False)
    source_name: str | None = None

    def __post_init__(self) -> None:
        check_attack("TransferAttack: the attack", self.attack)
        if self.attack.per_member:
            raise ValueError(
                f"TransferAttack: the attack {self.attack.name} returns one batch per member; "
                "expected one that returns a single batch. Attack the ensemble as a whole."
            )
        if self.attack.source is not None:
            raise ValueError(
                f"TransferAttack: the attack {self.attack.name} is already crafted on another "
                "model; expected an attack on the model that it is called with."
            )
        if not callable(self.source):
            raise TypeError(
                f"TransferAttack: the source is {self.source!r}; expected a Keras model, or a "
                'function `images -> {"logits", ...}`.'
            )
        object.__setattr__(self, "source", classifier_of(self.source))
        if not self.source_name:
            name = getattr(self.source, "name", None) or "another model"
            object.__setattr__(self, "source_name", str(name))

    @property
    def name(self) -> str:  # type: ignore[override]
        """The attack's name, and that of its source."""
        return f"{self.attack.name} from {self.source_name}"

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """Crafts on the source; of several rounds keeps the worst for the model attacked."""
        if isinstance(self.attack, Combination):
            return super().craft(forward, x, y, seed, targets)
        return self.attack.craft(as_forward(self.source), x, y, seed, targets)

    def rounds(self, classes: int) -> tuple[Round, ...]:
        """The rounds of the attack, each crafted on the source."""
        parts = self.attack.rounds(classes)
        # Rounds of one attack stay rounds of one attack, which is traced once.
        moved = {id(part.attack): replace(self, attack=part.attack) for part in parts}
        return tuple(part._replace(attack=moved[id(part.attack)]) for part in parts)


transfer = TransferAttack
