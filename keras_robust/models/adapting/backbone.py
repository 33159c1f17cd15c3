"""Classifiers on a backbone of `keras.applications`, pretrained or not."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras

from keras_robust.core.config import register
from keras_robust.core.validation import check_choice, check_integer, did_you_mean, lookup
from keras_robust.models.adapting.trainable_parts import PARTS, set_trainable
from keras_robust.models.building import checked_image_shape, classifier, image_input

Tensor: TypeAlias = keras.KerasTensor


class Pixels(NamedTuple):
    """The pixels that a backbone was trained on, `(x - mean) / std` of images in [0, 1].

    Attributes:
        mean: of all channels, or of red, green and blue.
        std: of all channels, or of red, green and blue.
        bgr: whether the channels are blue, green, red.
    """

    mean: Sequence[float]
    std: Sequence[float]
    bgr: bool = False


# The modes of `keras.applications.imagenet_utils.preprocess_input`. The first applications
# normalize pixels of 0 to 255 themselves.
_BYTES = Pixels((0, 0, 0), (1 / 255,) * 3)
_SYMMETRIC = Pixels((0.5,) * 3, (0.5,) * 3)
_TORCH = Pixels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CAFFE = Pixels((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3, bgr=True)
_NAMES = {
    _BYTES: """ConvNeXtTiny ConvNeXtSmall ConvNeXtBase ConvNeXtLarge ConvNeXtXLarge EfficientNetB0
        EfficientNetB1 EfficientNetB2 EfficientNetB3 EfficientNetB4 EfficientNetB5 EfficientNetB6
        EfficientNetB7 EfficientNetV2B0 EfficientNetV2B1 EfficientNetV2B2 EfficientNetV2B3
        EfficientNetV2S EfficientNetV2M EfficientNetV2L MobileNetV3Small MobileNetV3Large""",
    _SYMMETRIC: """InceptionResNetV2 InceptionV3 MobileNet MobileNetV2 NASNetLarge NASNetMobile
        ResNet50V2 ResNet101V2 ResNet152V2 Xception""",
    _TORCH: "DenseNet121 DenseNet169 DenseNet201",
    _CAFFE: "ResNet50 ResNet101 ResNet152 VGG16 VGG19",
}
APPLICATIONS = {name: pixels for pixels, names in _NAMES.items() for name in names.split()}
PREPROCESSING = {"bytes": _BYTES, "tf": _SYMMETRIC, "torch": _TORCH, "caffe": _CAFFE}
# Arguments of an application that `backbone` sets.
_SET = ("include_top", "include_preprocessing", "weights", "input_tensor", "input_shape", "pooling",
        "classes", "classifier_activation", "dropout_rate", "name")  # fmt: skip


@register
class ReverseChannels(keras.layers.Layer):
    """Images with their channels in the opposite order.

    Example:
        >>> ReverseChannels()(keras.ops.array([[1.0, 2.0, 3.0]])).numpy().tolist()
        [[3.0, 2.0, 1.0]]
    """

    def call(self, x: Tensor) -> Tensor:
        """`[..., channels]` to the same shape."""
        return keras.ops.flip(x, axis=-1)


def backbone(
    input_shape: Sequence[int],
    classes: int,
    application: str = "MobileNetV3Small",
    weights: str | os.PathLike[str] | None = None,
    trainable: str | None = None,
    size: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> keras.Model:
    """A model of `keras.applications` without its top, its mean over positions, a dense layer.

    Images are in [0, 1], like those of every classifier here: the pixels that the backbone was
    trained on are made by layers of the model, and the perturbation of an attack is one of the
    images. The features are the means of the last layer of the backbone, 576 values of
    MobileNetV3Small. The backbone is the layer `"backbone"`.

    Args:
        input_shape: see `build`; grayscale images are repeated to three channels.
        classes: see `build`.
        application: its name in `keras.applications`.
        weights: None for random ones; `"imagenet"`, which Keras downloads once; or a file of the
            application's weights without its top, such as
            `model.get_layer("backbone").save_weights("file.weights.h5")` writes.
        trainable: `"all"`, `"all_but_batch_norm"` or `"head"`: see `set_trainable`, which changes
            it. None for `"all_but_batch_norm"` with weights, and `"all"` without.
        size: side in pixels to which the model resizes its images, bilinearly; None for their own.
        options: further arguments of the application, such as `{"alpha": 0.5}`.

    Raises:
        ValueError: an unknown application or option, a file of other weights, images of another
            number of channels or, in Keras, too small ones.
        FileNotFoundError: the file of weights does not exist.

    Example:
        >>> model = backbone((32, 32, 3), 5, "MobileNet", options={"alpha": 0.25})
        >>> model.get_layer("backbone").output.shape, model.output["logits"].shape
        ((None, 256), (None, 5))
    """
    pixels = APPLICATIONS[lookup("application", application, APPLICATIONS)]
    shape = checked_image_shape(input_shape)
    part = trainable or ("all" if weights is None else "all_but_batch_norm")
    check_choice("trainable", part, PARTS)
    _check_options(application, options or {})
    inputs, x = image_input(shape, classes)
    x = _prepared(x, pixels, size)
    base = _built(application, tuple(x.shape[1:]), weights, options or {})
    model = classifier(inputs, base(x), classes)
    set_trainable(model, part)
    return model


def _check_options(application: str, options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(getattr(keras.applications, application)).parameters
    valid = [name for name in parameters if name not in _SET]
    for name in options:
        if name not in valid:
            there = did_you_mean(name, valid) if valid else "none."
            raise ValueError(f"{application} has no option {name!r} here; there are {there}")


def _prepared(x: Tensor, pixels: Pixels, size: int | None) -> Tensor:
    """Images in [0, 1] as the pixels of the backbone; in float32 under every policy."""
    if size is not None:
        check_integer("size", size, 1)
        x = keras.layers.Resizing(size, size, dtype="float32", name="resizing")(x)
    if x.shape[-1] == 1:
        x = keras.layers.Concatenate(dtype="float32", name="rgb")([x, x, x])
    if x.shape[-1] != 3:
        raise ValueError(f"Images have {x.shape[-1]} channels; expected 3, or 1 for grayscale.")
    for layer in _layers(pixels):
        x = layer(x)
    return x


def _layers(pixels: Pixels) -> list[keras.layers.Layer]:
    """The layers from color images in [0, 1] to the pixels of a backbone."""
    mean, std = list(pixels.mean), list(pixels.std)
    if pixels is _BYTES:
        return [keras.layers.Rescaling(255.0, dtype="float32", name="rescaling")]
    layers: list[keras.layers.Layer] = []
    if pixels.bgr:
        layers.append(ReverseChannels(dtype="float32", name="bgr"))
        mean, std = mean[::-1], std[::-1]
    variance = [value**2 for value in std]
    normalization = keras.layers.Normalization(
        mean=mean, variance=variance, dtype="float32", name="normalization"
    )
    return [*layers, normalization]


def preprocessing(mode: str) -> keras.layers.Layer:
    """The layer from images in [0, 1] to the pixels that a model was trained on.

    Args:
        mode: `"bytes"` for 0 to 255; or a mode of `keras.applications`: `"tf"` for [-1, 1],
            `"torch"` for colors normalized by the statistics of ImageNet, `"caffe"` for blue,
            green, red of 0 to 255 less their means.

    Returns:
        A layer for `adapt(model, preprocess=...)`.

    Raises:
        ValueError: an unknown mode.

    Example:
        >>> preprocessing("tf")(keras.ops.array([[[[0.0, 0.5, 1.0]]]])).numpy().ravel().tolist()
        [-1.0, 0.0, 1.0]

    Reference: `keras.applications.imagenet_utils.preprocess_input`.
    """
    name = lookup("preprocessing", mode, PREPROCESSING)
    if name == "tf":  # of any number of channels
        return keras.layers.Rescaling(2.0, offset=-1.0, dtype="float32", name="rescaling")
    layers = _layers(PREPROCESSING[name])
    return layers[0] if len(layers) == 1 else keras.Sequential(layers, name="preprocessing")


def _built(
    application: str,
    shape: tuple[int, ...],
    weights: str | os.PathLike[str] | None,
    options: Mapping[str, Any],
) -> keras.Model:
    """The application without its top; batch normalization follows a few hundred steps."""
    file = None if weights in (None, "imagenet") else os.fspath(weights)  # type: ignore[arg-type]
    if file is not None and not os.path.isfile(file):
        raise FileNotFoundError(
            f"weights is {file!r}; expected None, 'imagenet', or an existing file of the weights "
            f"of {application} without its top."
        )
    base = getattr(keras.applications, application)(
        include_top=False,
        weights=None if file else weights,
        input_shape=shape,
        pooling="avg",
        name="backbone",
        **options,
    )
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # Differs: as in the other networks here. The published 0.99 to 0.999 need thousands of
            # steps, and those of fine-tuning are few.
            layer.momentum = 0.9
    if file is not None:
        _load(base, application, file)
    return base


def _load(base: keras.Model, application: str, file: str) -> None:
    try:
        base.load_weights(file)
    except (ValueError, OSError) as error:
        reason = str(error).strip().split(". ")[0]
        raise ValueError(
            f"The file {file!r} does not fit {application} without its top ({reason}); expected "
            "weights of the same application and options, such as "
            "`model.get_layer('backbone').save_weights('file.weights.h5')` writes."
        ) from error
