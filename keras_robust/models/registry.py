"""Architectures by name, for recipes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_robust.core.validation import did_you_mean, lookup
from keras_robust.models.adapting.backbone import backbone
from keras_robust.models.architectures.convnext import convnext
from keras_robust.models.architectures.efficientnet import efficientnet_b0
from keras_robust.models.architectures.googlenet import googlenet
from keras_robust.models.architectures.mlp import mlp
from keras_robust.models.architectures.mobilenet import mobilenet_v1
from keras_robust.models.architectures.resnet_cifar import pre_act_resnet18, resnet18, resnet20
from keras_robust.models.architectures.small_cnn import small_cnn
from keras_robust.models.architectures.strided_cnn import strided_cnn
from keras_robust.models.architectures.vgg import vgg16
from keras_robust.models.architectures.vit import vit
from keras_robust.models.architectures.wide_resnet import wide_resnet, wrn_34_10
from keras_robust.models.ensemble import ensemble


def ensemble_of(
    input_shape: Sequence[int],
    classes: int,
    members: Sequence[str] = (),
    combine: str = "probabilities",
    options: Mapping[str, Any] | None = None,
) -> keras.Model:
    """An ensemble of architectures by name, each with weights of its own.

    Args:
        input_shape, classes: see `build`.
        members: keys of `ARCHITECTURES`, at least two; a name may be repeated.
        combine: as for `ensemble`.
        options: further arguments of each member's architecture; those under the name of an
            architecture are of its members only.

    Returns:
        As `ensemble`.

    Raises:
        TypeError, ValueError: as `build` of a member, and `ensemble`.

    Example:
        >>> model = ensemble_of((8, 8, 1), 10, ("mlp", "mlp"), options={"hidden": (16,)})
        >>> model.output["member_logits"].shape
        (None, 2, 10)
        >>> own = {"small_cnn": {"variant": "tiny"}, "vit": {"dim": 16, "heads": 2, "depth": 1}}
        >>> mixed = ensemble_of((8, 8, 1), 10, ("small_cnn", "vit"), options=own)
        >>> mixed.output["features"].shape
        (None, 48)
    """
    if isinstance(members, str):
        raise ValueError(f"members is {members!r}; expected names, such as ('mlp', 'mlp').")
    models = [
        build(name, input_shape, classes, **member_options(name, options or {})) for name in members
    ]
    return ensemble(models, combine)


def member_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an ensemble's member: those of all, then those under its name.

    Example:
        >>> member_options("vit", {"mean": 0.5, "vit": {"patch": 2}, "mlp": {"hidden": (8,)}})
        {'mean': 0.5, 'patch': 2}
    """
    common = {key: value for key, value in options.items() if key not in ARCHITECTURES}
    return {**common, **options.get(name, {})}


ARCHITECTURES: dict[str, Callable[..., keras.Model]] = {
    "mlp": mlp,
    "small_cnn": small_cnn,
    "strided_cnn": strided_cnn,
    "resnet20": resnet20,
    "resnet18": resnet18,
    "pre_act_resnet18": pre_act_resnet18,
    "wide_resnet": wide_resnet,
    "wrn_34_10": wrn_34_10,
    "vgg16": vgg16,
    "googlenet": googlenet,
    "mobilenet_v1": mobilenet_v1,
    "efficientnet_b0": efficientnet_b0,
    "convnext": convnext,
    "vit": vit,
    "backbone": backbone,
    "ensemble": ensemble_of,
}
# Names of release 0.1, which recipes saved by it hold.
_FORMER_NAMES = {
    "google_net": "googlenet",
    "mobile_net": "mobilenet_v1",
    "efficient_net": "efficientnet_b0",
}


def architecture(name: str) -> Callable[..., keras.Model]:
    """The function that builds the architecture of that name.

    Args:
        name: a key of `ARCHITECTURES`, or its name in release 0.1.

    Raises:
        ValueError: an unknown name; the message lists the valid ones.

    Example:
        >>> architecture("google_net") is googlenet
        True
    """
    return ARCHITECTURES[lookup("architecture", _FORMER_NAMES.get(name, name), ARCHITECTURES)]


def build(name: str, input_shape: Sequence[int], classes: int, **options: Any) -> keras.Model:
    """Builds the classifier of that name; describes the arguments that architectures share.

    Args:
        name: a key of `ARCHITECTURES`: `"mlp"`, `"small_cnn"`, `"strided_cnn"`, `"resnet20"`,
            `"resnet18"`, `"pre_act_resnet18"`, `"wide_resnet"`, `"wrn_34_10"`, `"vgg16"`,
            `"googlenet"`, `"mobilenet_v1"`, `"efficientnet_b0"`, `"convnext"`, `"vit"`,
            `"backbone"`, `"ensemble"`.
        input_shape: shape of one image without the batch, `(height, width, channels)`; `mlp` takes
            any shape and flattens it.
        classes: number of classes, at least 2.
        **options: further arguments of the architecture. All but the last two take `mean` and
            `std`, a number or one per channel in units of [0, 1]: the model normalizes its images
            to `(x - mean) / std`. Those with a `width` multiply every number of filters by it; 1.0
            is the published network. A `dropout` is the fraction of values dropped in training. The
            `activation` of residual networks is `"relu"`, `"silu"`, `"gelu"`, `"softplus"`,
            `"elu"` or `"leaky_relu"`.

    Returns:
        A functional model `images -> {"logits": [batch, classes], "features": [batch, d]}`.

    Raises:
        ValueError: an unknown name, or an invalid shape, number of classes or option.
        TypeError: an option that the architecture does not have; the message lists the valid ones.

    Example:
        >>> build("mlp", (8, 8, 1), 10, hidden=(32,)).get_layer("logits").output.shape
        (None, 10)
        >>> try:
        ...     build("resnet_18", (8, 8, 1), 10)
        ... except ValueError as error:
        ...     print(str(error)[-24:])
        Did you mean 'resnet18'?
    """
    builder = architecture(name)
    valid = list(inspect.signature(builder).parameters)[2:]
    for option in options:
        if option not in valid:
            raise TypeError(
                f"{name} has no option {option!r}; expected one of {did_you_mean(option, valid)}"
            )
    return builder(input_shape, classes, **options)
