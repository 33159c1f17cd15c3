"""Names of tensors, and the protocols of the library's parts.

- `Images`: `[batch, height, width, channels]`, or any `[batch, ...]`; float, in a ball's bounds.
- `Labels`: `[batch]`, integer.
- `Logits`: `[batch, classes]`, float.
- `PerExample`: `[batch]`, float.
- `Outputs`: `{"logits", "features"}`; ensembles add `"member_logits"`, `[batch, members, classes]`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:  # programs print --help without TensorFlow
    import tensorflow as tf

__all__ = [
    "Ball",
    "Forward",
    "Images",
    "Initialization",
    "Labels",
    "Logits",
    "Objective",
    "Outputs",
    "PerExample",
    "Radius",
    "RobustLoss",
    "Scalar",
    "Seed",
    "Solver",
    "StepRule",
]


def __dir__() -> list[str]:
    return __all__


# TensorFlow ships without types, so these names are Any to a type checker.
Images: TypeAlias = Any
Labels: TypeAlias = Any
Logits: TypeAlias = Any
PerExample: TypeAlias = Any
Scalar: TypeAlias = Any  # a number, or a scalar tensor
Radius: TypeAlias = Scalar
Seed: TypeAlias = Any  # an int, a pair of ints, or an int tensor of shape [] or [2]
Outputs: TypeAlias = dict[str, Any]
Forward: TypeAlias = Callable[[Images], Outputs]


@runtime_checkable
class Ball(Protocol):
    """A threat model: the set of allowed perturbed images, and the geometry of its norm.

    A class of your own that has these members works in every attack that does not name the norms
    it is defined for. To save what holds it, give it `get_config` and `from_config` too, and
    register it with Keras.
    """

    @property
    def radius(self) -> Radius:
        """The largest distance, in the units of the images."""

    @property
    def bounds(self) -> tuple[float, float]:
        """The range of a pixel."""

    @property
    def p(self) -> float | None:
        """The order of the norm if it is an Lp norm: 1, 2 or infinity; None for any other norm.

        Published attacks choose by it, such as Square its proposals.
        """

    def replace(
        self, *, radius: Radius | None = None, bounds: tuple[float, float] | None = None
    ) -> Ball:
        """The same threat model with another radius or other bounds.

        The radius may be a scalar tensor, and the bounds infinite.
        """

    def sample(self, x: Images, seed: tf.Tensor) -> Images:
        """A random point of the ball around `x`, clipped into the bounds."""

    def sample_sphere(self, x: Images, seed: tf.Tensor) -> Images:
        """A random point at the radius from `x`, clipped into the bounds."""

    def project(self, x_adv: Images, x: Images) -> Images:
        """Brings `x_adv` into the ball around `x` and into the bounds, in the dtype of `x`."""

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """The direction of length 1 in the ball's norm along `gradient`; 0 for a zero gradient."""

    def distance(self, x_adv: Images, x: Images) -> PerExample:
        """The distance of `x_adv` from `x` in the ball's norm, at least float32."""

    def dual_norm(self, gradient: tf.Tensor) -> PerExample:
        """The dual norm: the plane `value + gradient . d = 0` is `|value| / dual_norm` away."""

    def project_onto_hyperplane(self, x: Images, normal: tf.Tensor, value: PerExample) -> tf.Tensor:
        """The shortest step `d` with `value + normal . d = 0` and `x + d` inside the bounds.

        Where the bounds do not allow that, the step that comes closest; 0 where the normal is 0.
        At least float32, of the shape of `x`.
        """


class Objective(Protocol):
    """What an attack maximizes."""

    def __call__(
        self, forward: Forward, x: Images, y: Labels, targets: Labels | None = None
    ) -> Callable[[Images], PerExample]:
        """Does the work on clean images once; returns `x_adv -> [batch]`, larger is worse."""


class StepRule(Protocol):
    """How a gradient moves a point: two pure functions, the state passed in and out.

    A rule with a field `size` is rescaled with the radius by `Attack.at_radius`.
    """

    def init(self, ball: Ball, x_start: Images) -> Any:
        """The state before the first step."""

    def update(self, ball: Ball, x: Images, point: Any, state: Any) -> tuple[Images, Any]:
        """The next point inside the ball around `x`, and the next state."""


@runtime_checkable
class Solver(Protocol):
    """Weighs the gradients of several tasks, per example; pure, the state is passed in and out."""

    def init(self, start: tf.Tensor) -> Any:
        """The state before the first step, from equal weights `[batch, tasks]`."""

    def __call__(
        self, gram: tf.Tensor, values: tf.Tensor, achieved: tf.Tensor, state: Any
    ) -> tuple[tf.Tensor, Any]:
        """The weights of the gradients in their sum, `[batch, tasks]`, and the next state.

        `gram` is the Gram matrix of the gradients, `[batch, tasks, tasks]`; `values` are the tasks'
        losses, and `achieved` which of them are achieved, both `[batch, tasks]`.
        """


class Initialization(Protocol):
    """Where a gradient-based attack starts."""

    def __call__(self, ball: Ball, x: Images, seed: tf.Tensor) -> Images:
        """A first point inside the ball around `x`."""


@runtime_checkable
class RobustLoss(Protocol):
    """A loss on outputs, never on models: `(y, adversarial, clean) -> {term: [batch]}`.

    Subclasses define `term_names` and a call; the other members have defaults.
    """

    @property
    @abc.abstractmethod
    def term_names(self) -> tuple[str, ...]:
        """Names of the weighted terms, whose sum is minimized; known before the first step."""

    @property
    def required_outputs(self) -> frozenset[str]:
        """The outputs that a call reads: `"clean"` and `"adversarial"` by default.

        A loss of certified bounds reads `"bounds"` instead of `"adversarial"`. Any other name is of
        what a model of its own computes (`RobustModel.further_outputs`).
        """
        return frozenset({"clean", "adversarial"})

    @property
    def logged_statistics(self) -> tuple[str, ...]:
        """Names of further values that a call returns, logged and not minimized."""
        return ()

    @property
    def batch_level(self) -> bool:
        """Whether an example's value depends on the rest of its batch (no sample weights then)."""
        return False

    @property
    def per_member(self) -> bool:
        """Whether the loss reads one adversarial batch per member of an ensemble."""
        return False

    @abc.abstractmethod
    def __call__(self, y: Labels, adversarial: Outputs, clean: Outputs) -> dict[str, PerExample]:
        """The weighted terms and the logged statistics, each `[batch]`.

        Outputs that are not required may be None. If `"bounds"` are, `adversarial` holds the
        worst-case `"logits"` that they allow, which no image needs to reach.
        """
