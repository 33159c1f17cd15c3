"""Adapts any Keras model to the classifier contract."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_robust.core.classifier import classifier_of
from keras_robust.core.first_layers import bytes_expected, scaling_layers
from keras_robust.core.functional_graph import Call, Graph, is_functional
from keras_robust.models.adapting.surgery import (
    FeatureLayerQuery,
    expose_logits,
    named_outputs,
    with_contract,
)
from keras_robust.models.building import checked_shape, is_classifier

Shape = tuple[int | None, ...]


def adapt(
    model: keras.Model,
    features: str | None = None,
    input_shape: Sequence[int] | None = None,
    preprocess: keras.layers.Layer | None = None,
) -> keras.Model:
    """Makes a classifier that returns `{"logits", "features"}` out of a Keras model.

    The result shares the model's layers: nothing is copied, and training one trains the other. The
    result has no final softmax; the model keeps its own and predicts as before. A Sequential or
    subclassed model that is not built yet is built.

    The sigmoid of a single unit `z` becomes the logits `[0, z]` of two classes, and a `RobustModel`
    is taken for its classifier.

    Images are in [0, 1]. A model that was trained on another range needs `preprocess`:
    `keras.layers.Rescaling(255.0)` for pixels of 0 to 255 (`keras.applications.EfficientNet...`,
    which normalize inside), `keras.layers.Rescaling(2.0, offset=-1.0)` for [-1, 1]
    (`MobileNet...`, `ResNet...V2`, `Inception...`, `Xception`); `keras_robust.models.preprocessing`
    has them by name. A model whose first layers rescale pixels of 0 to 255, such as
    `Rescaling(1 / 255)`, is adapted with a warning: it takes images of 0 to 255 then.

    The layers of a subclassed model (one with its own `call`) are not accessible: it must return
    logits, or a dictionary of `"logits"` and `"features"`; without a dictionary the logits are also
    the features. To be saved, it must be registered with Keras and have a `get_config`.

    Args:
        model: Sequential, functional or subclassed, one input, one output `[batch, classes]` (or a
            dictionary with `"logits"`), with or without a final softmax.
        features: name of the layer whose output becomes the features, flattened to one vector per
            image; `"nested/layer"` for a layer inside a nested model that makes the logits. For a
            layer that is called several times, the last call counts. None takes the input of the
            last layer with weights, or the logits where the graph branches before it.
        input_shape: shape of one image without the batch; needed if the model is not built or
            leaves a size open.
        preprocess: a layer before the model that maps images in [0, 1] to the model's range.

    Returns:
        A functional model `images -> {"logits": [batch, classes], "features": [batch, d]}`, both
        float32; `model` itself if it is one already and nothing is to be changed.

    Raises:
        TypeError: `model` is not a Keras 3 model, or `preprocess` not a layer.
        ValueError: the model has an unknown input shape, several inputs or outputs, a sigmoid of
            several units, a single output without a sigmoid, probabilities that cannot be traced
            to logits, no gradient with respect to its images, or no layer `features`.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((28, 28, 1)),
        ...     keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="conv"),
        ...     keras.layers.Flatten(),
        ...     keras.layers.Dense(10, activation="softmax"),
        ... ])
        >>> classifier = adapt(model, features="conv")
        >>> outputs = classifier(np.ones((2, 28, 28, 1), "float32"))
        >>> outputs["logits"].shape, outputs["features"].shape
        (TensorShape([2, 10]), TensorShape([2, 676]))
    """
    model = classifier_of(model)
    _check_types(model, preprocess)
    if features is None and preprocess is None and _is_adapted(model, input_shape):
        return model
    shape = _image_shape(model, input_shape)
    image = keras.Input(shape, dtype="float32", name="images")
    prepared = image if preprocess is None else preprocess(image)
    inside = tuple(prepared.shape[1:])
    if isinstance(model, keras.Sequential) and not model.built:
        model.build((None, *inside))
    if is_functional(model):
        _check_fits(model, inside)
        core = expose_logits(model, FeatureLayerQuery(features), inside)
    else:
        core = _wrap_subclassed(model, features, inside)
    result = core if preprocess is None else keras.Model(image, core(prepared))
    _check_attackable(result, model.name)
    if preprocess is None and bytes_expected(model):
        _warn_of_bytes(model)
    return result


def _warn_of_bytes(model: keras.Model) -> None:
    first = scaling_layers(model)[0]
    scale = f"({float(np.mean(first.scale)):.6g})" if hasattr(first, "scale") else ""
    warnings.warn(
        f"Model {model.name!r} begins with {type(first).__name__}{scale}: it expects images of 0 "
        "to 255, where classifiers here take [0, 1]. Pass `preprocess=keras.layers.Rescaling("
        "255.0)` for images in [0, 1]; or keep images of 0 to 255, in a ball with "
        "`bounds=(0, 255)` and a radius in these units.",
        stacklevel=3,
    )


def _is_adapted(model: keras.Model, input_shape: Sequence[int] | None) -> bool:
    if not is_classifier(model):
        return False
    return input_shape is None or tuple(input_shape) == tuple(model.input.shape[1:])


def _check_types(model: Any, preprocess: Any) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"adapt takes a Keras 3 model, received {type(model).__module__}."
            f"{type(model).__qualname__}. A model of tf_keras or of an older file has to be loaded "
            "with keras.models.load_model; a function needs no adaptation."
        )
    if preprocess is not None and not isinstance(preprocess, keras.layers.Layer):
        raise TypeError(
            f"preprocess is {preprocess!r}; expected a Keras layer, such as "
            "keras.layers.Rescaling(255.0), or a Sequential of several."
        )
    inputs = getattr(model, "inputs", None)
    if inputs is not None and len(inputs) > 1:
        raise ValueError(
            f"Model {model.name!r} has {len(inputs)} inputs "
            f"({', '.join(tensor.name for tensor in inputs)}); expected one, the images. Fix the "
            "others in a functional model around it, and adapt that one."
        )


def _image_shape(model: keras.Model, input_shape: Sequence[int] | None) -> tuple[int, ...]:
    if input_shape is not None:
        return checked_shape(input_shape)
    if getattr(model, "inputs", None):
        known: Shape | None = tuple(model.inputs[0].shape[1:])
    else:
        build_config = model.get_build_config() or {}
        known = build_config.get("input_shape")
        known = known[1:] if isinstance(known, (tuple, list)) else None
    if not known:
        raise ValueError(
            f"Model {model.name!r} is not built, so the shape of its images is unknown: pass "
            "input_shape, such as adapt(model, input_shape=(32, 32, 3))."
        )
    if None in known:
        raise ValueError(
            f"Model {model.name!r} leaves sizes of its images open ({known}): pass input_shape, "
            "such as adapt(model, input_shape=(32, 32, 3))."
        )
    return checked_shape(known)


def _check_fits(model: keras.Model, input_shape: Shape) -> None:
    own = tuple(model.inputs[0].shape[1:])
    same_rank = len(own) == len(input_shape)
    if not same_rank or any(a not in (None, b) for a, b in zip(own, input_shape, strict=True)):
        raise ValueError(
            f"Model {model.name!r} takes images of {own}, not {input_shape}: leave out "
            "input_shape, or resize the images by "
            "preprocess=keras.layers.Resizing(height, width)."
        )


def _wrap_subclassed(model: keras.Model, features: str | None, input_shape: Shape) -> keras.Model:
    """A functional model with the subclassed model as its one layer."""
    if features is not None:
        raise ValueError(
            f"features={features!r} cannot be found: {model.name!r} is a subclassed model, whose "
            "layers are called by its own code. Let its `call` return "
            "{'logits': ..., 'features': ...}, and leave out `features`."
        )
    image = keras.Input(input_shape, dtype="float32", name="images")
    output = model(image)
    outputs = named_outputs(output, model.name)
    graph = Graph(image, [Call(model, [image], output)], output)
    return with_contract(graph, {"features": outputs["logits"], **outputs})


def _check_attackable(classifier: keras.Model, name: str) -> None:
    """Raises ValueError for outputs of a wrong shape, probabilities, or a broken gradient."""
    spec = classifier.compute_output_spec(classifier.inputs[0])["logits"]
    shape = tuple(spec.shape)
    if len(shape) != 2 or shape[1] is None:
        raise ValueError(
            f"Model {name!r} returns {shape}; expected [batch, classes]. End it in a Dense layer, "
            "or in Flatten where the further sizes are 1."
        )
    if shape[1] < 2:
        raise ValueError(
            f"Model {name!r} returns one value per image; expected one logit per class. For two "
            "classes end it in Dense(2), or in Dense(1, 'sigmoid'); if the value is the logit of "
            "class 1, add the sigmoid: keras.Sequential([model, "
            "keras.layers.Activation('sigmoid')])."
        )
    x = tf.constant(_random_images(classifier.inputs[0].shape[1:]))
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = classifier(x, training=False)["logits"]
    if tape.gradient(logits, x) is None:
        raise ValueError(
            f"No gradient flows from the output of model {name!r} to its images, so it cannot be "
            "attacked or hardened. Common causes are rounding, argmax and casts to integers."
        )
    rows = logits.numpy()
    if np.all(rows >= 0) and np.allclose(rows.sum(axis=1), 1.0, atol=1e-2):
        raise ValueError(
            f"Model {name!r} returns probabilities, and its softmax is not a final layer that can "
            "be removed. Attacks need logits (the logarithm of a saturated softmax has no "
            "gradient, which looks like robustness): return the values before the softmax, for "
            "instance after model.head.activation = keras.activations.linear. An average of "
            "several softmax models is keras_robust.models.ensemble([adapt(first), adapt(second)])."
        )


def _random_images(shape: Sequence[int]) -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(4, *shape)).astype("float32")
