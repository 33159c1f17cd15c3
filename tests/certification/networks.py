"""Small networks that together have every layer that bounds cover, with weights drawn anew."""

from __future__ import annotations

import keras
import numpy as np

import keras_robust as kr

SHAPE = (6, 6, 2)
CLASSES = 3
layers = keras.layers


def pooled(x):
    """Max pools with and without padding, LeakyReLU and tanh."""
    x = layers.Rescaling([2.0, 1.5], offset=-0.5)(x)
    x = layers.Conv2D(4, 3, strides=2, padding="same")(x)
    x = layers.LeakyReLU(negative_slope=0.1)(layers.BatchNormalization()(x))
    x = layers.MaxPooling2D(3, strides=1, padding="same")(x)
    x = layers.Dropout(0.5)(layers.MaxPooling2D(2, strides=1)(x))
    x = layers.Dense(6, activation="tanh")(layers.Flatten()(x))
    return layers.Dense(CLASSES)(x)


def residual(x):
    """Branches that are added and concatenated, ReLU6, average pools."""
    x = layers.Normalization(mean=[0.4, 0.6], variance=[0.3, 0.2])(x)
    x = layers.Conv2D(4, 3, activation="relu", strides=2)(layers.ZeroPadding2D(((1, 0), 1))(x))
    y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=1)(x)
    y = layers.ReLU(max_value=0.5)(layers.BatchNormalization(scale=False)(y))
    y = layers.Add()([x, layers.Conv2D(4, 1, use_bias=False)(y)])
    z = layers.AveragePooling2D(2, strides=1, padding="same")(layers.ReLU()(y))
    x = layers.GlobalAveragePooling2D()(layers.Concatenate()([x, y, z]))
    return layers.Dense(CLASSES)(x)


def grouped(x):
    """Grouped and dilated convolutions, means, a sigmoid."""
    x = layers.Conv2D(4, 3, groups=2, dilation_rate=2, padding="same")(x)
    x = layers.Activation("relu")(x)
    x = layers.AveragePooling2D(2)(x)
    x = layers.Average()([x, layers.Conv2D(4, 3, padding="same", activation="leaky_relu")(x)])
    x = layers.Reshape((9, 4))(layers.SpatialDropout2D(0.2)(x))
    x = layers.Dense(2, activation="sigmoid")(x)
    return layers.Dense(CLASSES)(layers.Flatten()(x))


def functions(x):
    """Functions of `keras.ops` in the place of layers."""
    x = keras.ops.reshape(x, (-1, 72))
    x = keras.ops.relu(layers.Dense(8)(x))
    y = keras.ops.leaky_relu(layers.Dense(8)(x), negative_slope=0.3)
    x = keras.ops.tanh(x + y) + keras.ops.relu6(y)
    x = keras.ops.concatenate([x, keras.ops.sigmoid(y)], axis=1)
    return layers.Dense(CLASSES)(layers.Identity()(x))


def functional(body, shape=SHAPE):
    images = keras.Input(shape)
    logits = body(images)
    return keras.Model(images, {"logits": logits, "features": logits})


def adapted():
    """A user's Sequential model with a softmax, behind a layer of preprocessing."""
    own = keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(3, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(5, activation="relu"),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    return kr.models.adapt(own, preprocess=layers.Rescaling(2.0, offset=-1.0))


def ensemble():
    """The mean of the logits of two perceptrons."""
    members = [kr.models.mlp(SHAPE, CLASSES, hidden=(units,)) for units in (6, 8)]
    return kr.models.ensemble(members, combine="logits")


NETWORKS = {
    "pooled": lambda: functional(pooled),
    "residual": lambda: functional(residual),
    "grouped": lambda: functional(grouped),
    "functions": lambda: functional(functions),
    "adapted": adapted,
    "ensemble": ensemble,
}


def draw_weights(model, rng):
    """New random weights, of a size that keeps values near 1, and positive variances."""
    for variable in model.weights:
        if "seed" in variable.path:
            continue
        shape = tuple(variable.shape)
        if variable.path.endswith(("variance", "gamma")):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            fan_in = np.prod(shape[:-1]) if len(shape) > 1 else 4
            value = rng.normal(0, 1.5 / np.sqrt(fan_in), shape)
        variable.assign(value)


def true_margins(logits, y):
    """`z_y - z_j`, `[batch, classes]`."""
    logits = np.asarray(logits)
    return np.take_along_axis(logits, np.asarray(y)[:, None], axis=1) - logits
