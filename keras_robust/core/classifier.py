"""The classifier contract: images -> `{"logits", "features"}`; ensembles add `"member_logits"`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_robust.core.gradient_scaling import scaled_gradients
from keras_robust.core.types import Forward, Images, Outputs


def contract_of(model: Any) -> dict[str, Any] | None:
    """The symbolic outputs of a built functional model that returns a dictionary, else None."""
    output = getattr(model, "output", None) if isinstance(model, keras.Model) else None
    return output if isinstance(output, dict) else None


def as_forward(model: Any) -> Forward:
    """Turns a Keras model, or a function of images, into a `Forward` in inference mode.

    Args:
        model: a `keras.Model` or a function `images -> {"logits", ...}`.

    Returns:
        A function `images -> Outputs`. For an ensemble, its attribute `members` holds such
        functions of the members. A call raises TypeError unless the model returns a dictionary with
        `"logits"`.

    Example:
        >>> forward = as_forward(lambda x: {"logits": 2 * x})
        >>> forward(tf.ones([1, 2]))["logits"].numpy().tolist()
        [[2.0, 2.0]]
    """

    def forward(x: Images) -> Outputs:
        outputs = model(x, training=False) if isinstance(model, keras.Model) else _call(model, x)
        if not isinstance(outputs, dict) or "logits" not in outputs:
            keys = sorted(outputs) if isinstance(outputs, dict) else type(outputs).__name__
            raise TypeError(
                f"The model returned {keys}; expected a dictionary with 'logits' (and 'features'). "
                "Wrap a Keras model of your own with `keras_robust.models.adapt(model)`."
            )
        return outputs

    result: Any = scaled_gradients(forward) if _may_underflow(model) else forward
    result.members = tuple(map(as_forward, members_of(model)))
    return result


def _may_underflow(model: Any) -> bool:
    """Whether a layer computes in half precision; a function may hide one."""
    if not isinstance(model, keras.Model):
        return True
    return any("float16" in str(layer.compute_dtype) for layer in all_layers(model))


def all_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model and of the models inside it."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from all_layers(layer)


def _call(function: Any, x: Images) -> Any:
    """Calls a function of images; one that computes in NumPy is told how to be wrapped."""
    try:
        return function(x)
    except (AttributeError, NotImplementedError, TypeError) as error:
        numpy = "numpy" in str(error).lower() or "ndarray" in str(error)
        if tf.executing_eagerly() or not numpy:
            raise
        raise TypeError(
            "The model is a function that computes in NumPy, which attacks cannot trace as a "
            'graph. For an attack without gradients wrap it: `lambda x: {"logits": '
            "tf.ensure_shape(tf.numpy_function(function, [x], tf.float32), [None, classes])}`."
        ) from error


def members_of(model: Any) -> tuple[Any, ...]:
    """The members of an ensemble, each of which runs without the others.

    Args:
        model: a Keras model, or a function with an attribute `members`.

    Returns:
        Models or functions in the order of `"member_logits"`; empty for a single classifier, or if
        the members are not nested models.

    Example:
        >>> import keras_robust as kr
        >>> ensemble = kr.models.ensemble([kr.models.mlp((2, 2, 1), 3) for _ in range(2)])
        >>> [member.name for member in members_of(ensemble)]
        ['member_1', 'member_2']
    """
    if not isinstance(model, keras.Model):
        return tuple(getattr(model, "members", ()))
    model = getattr(model, "classifier", model)
    outputs = contract_of(model) or {}
    if "member_logits" not in outputs:
        return ()
    parts = tuple(layer for layer in model.layers if "logits" in (contract_of(layer) or {}))
    return parts if len(parts) == outputs["member_logits"].shape[1] else ()


def each_member(owner: str, forward: Forward, x: Images) -> tuple[Forward, ...]:
    """Splits an ensemble into functions of its members.

    Args:
        owner: the caller, for the message.
        forward: an ensemble, such as the result of `as_forward`. Without an attribute `members`,
            the whole ensemble runs for each member.
        x: images that it takes.

    Returns:
        Functions `images -> {"logits"}`, in the order of `"member_logits"`.

    Raises:
        ValueError: a single classifier.

    Example:
        >>> def forward(x):
        ...     return {"logits": x, "member_logits": tf.stack([x, -x], axis=1)}
        >>> _, second = each_member("The example", forward, tf.ones([1, 2]))
        >>> second(tf.ones([1, 2]))["logits"].numpy().tolist()
        [[-1.0, -1.0]]
    """
    members = members_of(forward)
    if members:
        return members
    outputs = forward(x)
    if "member_logits" not in outputs:
        raise ValueError(
            f"{owner} was called with a model of outputs {sorted(outputs)}; "
            "expected an ensemble, such as `keras_robust.models.ensemble([...])`."
        )

    def member(number: int) -> Forward:
        return lambda x: {"logits": forward(x)["member_logits"][:, number]}

    return tuple(map(member, range(outputs["member_logits"].shape[1])))


def check_ensemble(owner: str, classifier: Any) -> int:
    """Raises unless `classifier` is an ensemble; returns the number of members.

    Args:
        owner: the caller, for the message.
        classifier: the value received.

    Raises:
        TypeError: not a model with the logits of at least two members.
    """
    outputs = contract_of(classifier) or {}
    members = outputs["member_logits"].shape[1] if "member_logits" in outputs else 0
    if members < 2:
        received = f"a model with outputs {sorted(outputs)}" if outputs else repr(classifier)
        raise TypeError(
            f"{owner}: the classifier is {received}; expected an ensemble, such as "
            "`keras_robust.models.ensemble([classifier_1, classifier_2])`."
        )
    return members


def classifier_of(model: Any) -> Any:
    """The classifier of a robust model; any other model is returned unchanged."""
    return getattr(model, "classifier", model)


def bounds_of(model: Any) -> tuple[float, float] | None:
    """The pixel range that a robust model's attack keeps to; None if there is none, or no limit."""
    for name in ("attack", "validation_attack"):
        ball = getattr(getattr(model, name, None), "ball", None)
        if ball is not None:
            low, high = ball.bounds
            return (float(low), float(high)) if math.isfinite(high - low) else None
    return None


def features_of(outputs: Outputs) -> tf.Tensor:
    """The features among a model's outputs, flattened to `[batch, d]`.

    Raises:
        TypeError: the outputs have no `"features"`.

    Example:
        >>> features_of({"logits": None, "features": tf.zeros([2, 3, 4])}).shape.as_list()
        [2, 12]
    """
    if "features" not in outputs:
        raise TypeError(
            f"The model returned {sorted(outputs)}; expected 'features' too. Wrap a Keras model of "
            "your own with `keras_robust.models.adapt(model, features='layer_name')`."
        )
    features = tf.convert_to_tensor(outputs["features"])
    return tf.reshape(features, [tf.shape(features)[0], -1])
