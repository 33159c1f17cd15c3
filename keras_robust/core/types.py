"""Names for tensors, and the protocols by which the parts of the library fit together.

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

if TYPE_CHECKING:  # programs answer --help before TensorFlow is imported
    import tensorflow as tf

# Any, to a type checker: TensorFlow ships no types. The names are for the reader.
Images: TypeAlias = Any
Labels: TypeAlias = Any
Logits: TypeAlias = Any
PerExample: TypeAlias = Any
Seed: TypeAlias = Any  # an int, a pair of ints, or an int tensor of shape [] or [2]
Outputs: TypeAlias = dict[str, Any]
Forward: TypeAlias = Callable[[Images], Outputs]


@runtime_checkable
class Ball(Protocol):
    """A threat model: where a perturbed image may be. All that knows of a norm lives in one."""

    radius: Any
    bounds: tuple[float, float]

    def sample(self, x: Images, seed: tf.Tensor) -> Images:
        """Draws a point uniformly from the ball around `x`, then clips it into the bounds."""

    def project(self, x_adv: Images, x: Images) -> Images:
        """Brings `x_adv` into the ball around `x` and into the bounds."""

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """The direction of unit length, in the ball's own norm, along `gradient`."""

    def distance(self, x_adv: Images, x: Images) -> PerExample:
        """How far `x_adv` is from `x`, in the ball's norm."""


class Objective(Protocol):
    """What an attack climbs."""

    def __call__(
        self, forward: Forward, x: Images, y: Labels, targets: Labels | None = None
    ) -> Callable[[Images], PerExample]:
        """Does the work on clean images once; returns `x_adv -> one value per example`."""


class StepRule(Protocol):
    """How a gradient moves a point: a pure pair of functions, the state passed in and out."""

    def init(self, ball: Ball, x_start: Images) -> Any:
        """The state before the first step."""

    def update(self, ball: Ball, x: Images, point: Any, state: Any) -> tuple[Images, Any]:
        """The next point inside the ball around `x`, and the next state."""


class Solver(Protocol):
    """Weighs the gradients of many tasks, for each example on its own: pure, state in and out."""

    def init(self, start: tf.Tensor) -> Any:
        """The state before the first step, from equal weights `[batch, tasks]`."""

    def __call__(
        self, gram: tf.Tensor, values: tf.Tensor, achieved: tf.Tensor, state: Any
    ) -> tuple[tf.Tensor, Any]:
        """The weights by which gradients are summed, `[batch, tasks]`, and the next state.

        `gram` has the products of the gradients, `[batch, tasks, tasks]`; `values` what is climbed,
        and `achieved` which goals are, both `[batch, tasks]`.
        """


class Initialization(Protocol):
    """Where an ascent begins."""

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
        """The outputs that a call reads, a subset of `{"clean", "adversarial"}`; default both."""
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

        Outputs that are not required may be None.
        """
