"""Label smoothing: a context in which `cross_entropy` takes soft labels."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

from keras_robust.core.validation import check_number


class _Smoothing:
    """The smoothing of a context, and whether a cross-entropy was computed in it."""

    def __init__(self, alpha: float):
        self.alpha = alpha
        self.used = False


_CURRENT: contextvars.ContextVar[_Smoothing | None] = contextvars.ContextVar(
    "label_smoothing", default=None
)


def check_smoothing(name: str, alpha: float) -> None:
    """Raises ValueError unless alpha is in [0, 1); at 1 the label would not count."""
    check_number(name, alpha, below=1, hint=", the weight of the uniform distribution")


@contextlib.contextmanager
def smoothed_labels(alpha: float) -> Iterator[None]:
    """Makes `cross_entropy` take the soft labels `(1 - alpha) * one_hot(y) + alpha / classes`.

    `negative_log_likelihood` stays that of the label. The context is that of a thread, and of the
    trace of a `tf.function`.

    Args:
        alpha: weight of the uniform distribution, in [0, 1); 0 for the labels themselves.

    Raises:
        ValueError: alpha outside [0, 1), or no cross-entropy was computed, so that smoothing would
            have no effect.

    Example:
        >>> import tensorflow as tf
        >>> import keras_robust as kr
        >>> logits, label = tf.constant([[4.0, 0.0]]), tf.constant([0])
        >>> with smoothed_labels(0.5):  # 3/4 and 1/4: a quarter of the difference 4 is added
        ...     soft = kr.losses.cross_entropy(logits, label)
        >>> round(float(soft[0] - kr.losses.cross_entropy(logits, label)[0]), 4)
        1.0

    Reference: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2016),
    section 7; Bui, thesis (2023), Eq. 2.4.
    """
    check_smoothing("alpha", alpha)
    if not alpha:
        yield
        return
    smoothing = _Smoothing(alpha)
    token = _CURRENT.set(smoothing)
    try:
        yield
    finally:
        _CURRENT.reset(token)
    if not smoothing.used:
        raise ValueError(
            f"label_smoothing is {alpha:g}, but the loss computes no "
            "`keras_robust.losses.cross_entropy`, whose labels it smooths; expected a loss that "
            "does, or label_smoothing=0."
        )


def present_smoothing() -> float:
    """The alpha of the innermost context, 0 outside; marks it as used."""
    smoothing = _CURRENT.get()
    if smoothing is None:
        return 0.0
    smoothing.used = True
    return smoothing.alpha
