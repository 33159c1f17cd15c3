"""`load_torch`: published PyTorch models as models of this package."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_robust.core.validation import lookup
from keras_robust.models.building import PerChannel
from keras_robust.models.pytorch.state_dict import read_state_dict
from keras_robust.models.pytorch.torch_names import SCHEMES, Scheme
from keras_robust.models.registry import build

_SHOWN = 6  # names in an error
_COUNTERS = ".num_batches_tracked"
_MEANS, _DEVIATIONS = ("mu", "mean"), ("sigma", "std")
_BATCH_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def load_torch(
    source: str | os.PathLike[str] | Mapping[str, Any],
    architecture: str,
    *,
    input_shape: Sequence[int] | None = None,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
    ignore: Sequence[str] = (),
    **options: Any,
) -> keras.Model:
    """Builds an architecture with the weights of a PyTorch model, such as those of RobustBench.

    The names of layers of the usual implementations are known (`docs/models.md` lists them), behind
    any prefix such as `module.` or `model.`. Logits are equal to those of PyTorch up to rounding,
    with images `[batch, height, width, channels]` in [0, 1].

    Args:
        source: the state dict: a `.safetensors` or `.npz` file, a file of `torch.save` (`.pt`,
            `.pth`; needs PyTorch), or a dictionary of arrays.
        architecture: `"resnet18"`, `"pre_act_resnet18"`, `"wide_resnet"` or `"wrn_34_10"`.
        input_shape: shape of one image; default 32 x 32 with the channels of the first kernel.
        mean, std: normalization that the PyTorch model does before its first layer, as for `build`;
            default the buffers `mu` and `sigma`, or `mean` and `std`, of the state dict, if there
            are any.
        ignore: beginnings of names of arrays that the model does not use.
        **options: of the architecture. Widths and depths are read off the shapes, and `padding`,
            `last_norm` and the shortcut of DeepMind's networks off the names. The activation is not
            in the weights: give `activation="silu"` where it is not a rectifier. Nor is the
            shortcut of other `pre_act_resnet18`: give `shortcut="input"` where it is not that of
            the paper.

    Returns:
        A functional model, `images -> {"logits", "features"}`.

    Raises:
        FileNotFoundError, ImportError: as for a missing file, or a missing PyTorch.
        ValueError: an architecture whose names are not known, a file that is not a state dict, or
            arrays that do not fit: the message lists missing and unexpected names and wrong shapes.
        TypeError: an option that the architecture does not have.

    Example:
        >>> import numpy as np
        >>> try:
        ...     load_torch({"conv1.weight": np.ones((4, 3, 3, 3))}, "resnet18")
        ... except ValueError as error:
        ...     print(str(error)[:67])
        The state dict has no layers of resnet18; expected conv1.weight and

    Reference: Croce et al., "RobustBench: A Standardized Adversarial Robustness Benchmark" (2021).
    """
    name = lookup("architecture with known names in PyTorch", architecture, SCHEMES)
    arrays = read_state_dict(source)
    what = "The state dict" if isinstance(source, Mapping) else os.fspath(source)
    scheme, prefix = _scheme(name, arrays, what)
    known = (_COUNTERS.strip("."), *(prefix + unused for unused in scheme.unused), *ignore)
    arrays = {
        key: value
        for key, value in arrays.items()
        if not (key.endswith(_COUNTERS) or key.startswith(known))
    }
    own_mean, own_std = _popped(arrays, _MEANS), _popped(arrays, _DEVIATIONS)
    stem = arrays[f"{scheme.module('stem_conv', arrays, prefix)}.weight"]
    head = arrays[f"{scheme.module('logits', arrays, prefix)}.weight"]
    if (stem.ndim, head.ndim) != (4, 2):
        raise ValueError(
            f"{what} does not fit {name}: its first kernel has the shape {stem.shape} and its last "
            f"{head.shape}; expected 4 and 2 axes."
        )
    model = build(
        name,
        input_shape or (32, 32, stem.shape[1]),
        head.shape[0],
        mean=own_mean if mean is None else mean,
        std=own_std if std is None else std,
        **{**scheme.options, **_sizes(name, scheme, arrays, prefix), **options},
    )
    _assign(model, scheme, arrays, prefix, f"{what} does not fit {name}")
    return model


def _scheme(name: str, arrays: Mapping[str, np.ndarray], what: str) -> tuple[Scheme, str]:
    """The implementation whose names the arrays have, and the prefix of these names."""
    found = [(scheme, prefix) for scheme in SCHEMES[name] for prefix in scheme.prefixes(arrays)]
    if len(found) > 1:
        raise ValueError(
            f"{what} has several networks, {', '.join(repr(prefix) for _, prefix in found)}; pass "
            "a dictionary with the arrays of one of them."
        )
    if not found:
        pairs = [
            f"{scheme.layers['stem_conv'][0]}.weight and {scheme.layers['logits'][0]}.weight"
            for scheme in SCHEMES[name]
        ]
        raise ValueError(
            f"{what} has no layers of {name}; expected {', or '.join(pairs)}, and it has "
            f"{_listed(list(arrays))}."
        )
    return found[0]


def _popped(arrays: dict[str, np.ndarray], names: Sequence[str]) -> list[float] | float | None:
    """Takes the only array of one of these names out of a state dict, as numbers per channel."""
    found = [key for key in arrays if key.rpartition(".")[2] in names]
    if len(found) != 1:
        return None
    values = arrays.pop(found[0]).astype("float64").reshape(-1).tolist()
    return values[0] if len(values) == 1 else values


def _sizes(
    name: str, scheme: Scheme, arrays: Mapping[str, np.ndarray], prefix: str
) -> dict[str, Any]:
    """The options of an architecture that the shapes and the names decide."""
    stem = arrays[f"{scheme.module('stem_conv', arrays, prefix)}.weight"]
    sizes: dict[str, Any] = {}
    if name == "wide_resnet":
        first = scheme.first_convolution(arrays, prefix)
        blocks = scheme.blocks(arrays, prefix)
        if first is not None:
            sizes = {"depth": 6 * blocks + 4, "widen_factor": first.shape[0] / 16}
    elif name != "wrn_34_10":
        sizes["width"] = stem.shape[0] / 64
    if name == "pre_act_resnet18":
        module = scheme.module("last_bn", arrays, prefix)
        sizes["last_norm"] = f"{module}.weight" in arrays
    return sizes


def _assign(
    model: keras.Model,
    scheme: Scheme,
    arrays: Mapping[str, np.ndarray],
    prefix: str,
    what: str,
) -> None:
    """Sets all weights of a model.

    Raises:
        ValueError: names or shapes that do not fit, or numbers that are not finite.
    """
    places = {
        key: weight
        for layer in model.layers
        if layer.weights and not isinstance(layer, keras.layers.Normalization)
        for key, weight in _places(layer, scheme.module(layer.name, arrays, prefix))
    }
    # A last layer without bias has a bias of zero.
    bias = f"{scheme.module('logits', arrays, prefix)}.bias"
    given = {bias: np.zeros(places[bias].shape), **arrays}
    shapes = [
        f"{key} is {given[key].shape}, expected {_torch_shape(weight.shape)}"
        for key, weight in places.items()
        if key in given and given[key].shape != _torch_shape(weight.shape)
    ]
    problems = {
        "missing": [key for key in places if key not in given],
        "unexpected": [key for key in given if key not in places],
        "shapes": shapes,
        "not finite": [key for key in places if not np.all(np.isfinite(given.get(key, 0)))],
    }
    found = [f"{kind}: {_listed(names)}" for kind, names in problems.items() if names]
    if found:
        raise ValueError(
            f"{what}: {'; '.join(found)}. Options of the architecture, such as a width, may "
            "differ; `ignore` leaves arrays out."
        )
    for key, weight in places.items():
        weight.assign(_kernel(given[key]).astype("float32"))


def _places(layer: keras.Layer, module: str) -> list[tuple[str, keras.Variable]]:
    """The weights of a layer, with their names in PyTorch."""
    if isinstance(layer, keras.layers.BatchNormalization):
        own = _BATCH_NORM
    else:
        own = {"kernel": "weight", "bias": "bias"} if layer.use_bias else {"kernel": "weight"}
    return [(f"{module}.{name}", getattr(layer, attribute)) for attribute, name in own.items()]


def _kernel(values: np.ndarray) -> np.ndarray:
    """A weight in the layout of Keras: kernels `OIHW -> HWIO`, of dense layers `OI -> IO`.

    Example:
        >>> _kernel(np.zeros((8, 3, 5, 5))).shape, _kernel(np.zeros((10, 64))).shape
        ((5, 5, 3, 8), (64, 10))
    """
    return np.moveaxis(values, (0, 1), (-1, -2)) if values.ndim > 1 else values


def _torch_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of a weight of Keras in the layout of PyTorch."""
    return (*reversed(shape[-2:]), *shape[:-2]) if len(shape) > 1 else tuple(shape)


def _listed(names: Sequence[str]) -> str:
    """Names for a message, the first few of them."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
