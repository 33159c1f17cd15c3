"""`trainers.train` with one more net: a small one with all that a net can have a state in."""

from __future__ import annotations

import keras

import keras_robust as kr


def net(shape, classes):
    """A net of batch norm and dropout."""
    inputs = keras.Input(shape)
    x = keras.layers.Dense(8)(keras.layers.Flatten()(inputs))
    x = keras.layers.BatchNormalization()(x)
    features = keras.layers.Dropout(0.3)(keras.layers.ReLU()(x))
    logits = keras.layers.Dense(classes, dtype="float32")(features)
    return keras.Model(inputs, {"logits": logits, "features": features})


def main():
    from keras_robust.experiments.flags import command_line
    from trainers import train

    kr.models.ARCHITECTURES["stateful"] = net
    command_line.start(train.PROGRAM, train.main, train.define_flags, train.parse)


if __name__ == "__main__":
    main()
