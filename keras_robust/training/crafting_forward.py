"""The classifier that the attack of a training step runs on: its mode and its precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from keras_robust.core.classifier import members_of
from keras_robust.core.types import Forward, Images, Outputs
from keras_robust.core.validation import check_choice
from keras_robust.training.distribution import batch_norms
from keras_robust.training.precision_copy import copy_in

MODES = ("eval", "train")
DTYPES = ("float32", "bfloat16")


def crafting_forward(
    classifier: keras.Model, mode: str = "eval", dtype: str = "float32"
) -> keras.Model | Forward:
    """The function of images that the attack of a training step runs on.

    Args:
        classifier: a built functional model that maps images to `{"logits", "features"}`.
        mode: `"eval"`, or `"train"` for the batch statistics and the dropout of training.
        dtype: `"float32"`, or `"bfloat16"` for convolutions and products in half precision. Weights
            are read from the classifier at each call; outputs have the dtype of the images.

    Returns:
        The classifier itself, or a function `images -> outputs` that does not change its state.

    Raises:
        ValueError: another mode or dtype; in half precision, a layer that cannot be built from its
            config, such as a `Lambda`.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((2, 2, 1), classes=3, hidden=(4,))
        >>> forward = crafting_forward(classifier, dtype="bfloat16")
        >>> forward(tf.zeros([5, 2, 2, 1]))["logits"].dtype.name
        'float32'
    """
    check_choice("crafting_mode", mode, MODES)
    # Not float16, in which small gradients of images underflow.
    check_choice("crafting_dtype", dtype, DTYPES)
    if mode == "eval" and dtype == "float32":
        return classifier
    template = classifier if dtype == "float32" else _in_half_precision(classifier)
    forward = _without_state(template, classifier, mode)
    forward.members = tuple(  # type: ignore[attr-defined]
        _without_state(half, member, mode)
        for half, member in zip(members_of(template), members_of(classifier), strict=True)
    )
    return forward


def _without_state(template: keras.Model, classifier: keras.Model, mode: str) -> Forward:
    """The layers of `template` with the weights of `classifier`, as a pure function."""

    def forward(x: Images) -> Outputs:
        with _own_statistics(template):
            outputs, _ = template.stateless_call(
                [v.value for v in classifier.trainable_variables],
                [v.value for v in classifier.non_trainable_variables],
                x,
                training=mode == "train",
            )
        return {name: tf.cast(output, x.dtype) for name, output in outputs.items()}

    return forward


def _in_half_precision(classifier: keras.Model) -> keras.Model:
    """A copy of the layers that computes in bfloat16 instead of float32; its weights are unused."""
    return copy_in(
        classifier,
        "mixed_bfloat16",
        instead_of=("float32",),  # another compute dtype was chosen by the user
        why="crafting_dtype='bfloat16'",
        otherwise="Use crafting_dtype='float32'",
    )


@contextlib.contextmanager
def _own_statistics(model: keras.Model) -> Iterator[None]:
    """Makes batch norm use each replica's own part: the crafting loop has no collectives."""
    synchronized = [layer for layer in batch_norms(model) if layer.synchronized]
    for layer in synchronized:
        layer.synchronized = False
    try:
        yield
    finally:
        for layer in synchronized:
            layer.synchronized = True
