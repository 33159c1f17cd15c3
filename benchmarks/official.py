"""The official AutoAttack (`pyautoattack`) on a Keras model: by an adapter, a bridge, or a copy.

PyTorch and pyautoattack are imported on use, so that the benchmarks can be imported without them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
# By version, the attacks in the order of `AutoAttack.attacks`.
NAMES = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
BRIDGES = ("adapter", "compiled", "pytorch")
_AGREE = 1e-4


class Settings(NamedTuple):
    """Settings of the official code, named as the flags of `auto_attack.py`."""

    norm: str
    radius: float
    version: str
    steps: int
    queries: int
    seed: int


def installed() -> bool:
    """Whether the official code can be run; prints what is missing."""
    for package in ("torch", "pyautoattack"):
        if importlib.util.find_spec(package) is None:
            print(f"{package} is not installed: the official AutoAttack is skipped.")
            return False
    return True


def reached_by(bridge: str, model: keras.Model) -> Any:
    """The model for the official code, with one thread per core.

    Args:
        bridge: `"adapter"`, the official code's own for TensorFlow; `"compiled"`, a PyTorch
            function whose two passes are each a `tf.function`; `"pytorch"`, a copy in PyTorch.
        model: a Keras model with `"logits"`.
    """
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return {"adapter": adapted, "compiled": bridged, "pytorch": copied}[bridge](model)


def accuracy_left(
    model: Any, settings: Settings, names: list[str], x: np.ndarray, y: np.ndarray
) -> float:
    """The robust accuracy under official attacks, run one after the other.

    Args:
        model: from `reached_by`.
        settings: settings of the attacks.
        names: the attacks, of `NAMES`.
        x: images `[batch, height, width, channels]`, attacked in one batch.
        y: labels `[batch]`.
    """
    import torch

    images = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    labels = torch.from_numpy(y.astype("int64"))
    official = _official(model, settings)
    official.attacks_to_run = names
    _, predictions = official.run_standard_evaluation(images, labels, batch_size=len(y))
    return int((predictions == labels).sum()) / len(y)


def _official(model: Any, settings: Settings) -> Any:
    """`AutoAttack` with parts created again, as they derive settings from the number of steps.

    For the adapter, the parts are those that `AutoAttack` created for TensorFlow models before
    `pyautoattack` dropped its flag for them.
    """
    from pyautoattack.autoattack import AutoAttack
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
    from pyautoattack.fab_pt import FABAttack_PT
    from pyautoattack.fab_tf import FABAttack_TF

    shared = {"norm": NORMS[settings.norm], "eps": settings.radius, "seed": settings.seed}
    official = AutoAttack(model, version="custom", **shared)
    shared |= {"n_iter": settings.steps, "device": "cpu"}
    by_adapter = hasattr(model, "get_logits_loss_grad_xent")
    apgd = {**shared, "is_tf_model": by_adapter, "logger": official.logger}
    official.apgd = APGDAttack(model, **apgd)
    official.apgd_targeted = APGDAttack_targeted(model, **apgd)
    official.fab = (FABAttack_TF if by_adapter else FABAttack_PT)(model, **shared)
    official._set_version(settings.version)
    official.square.n_queries = settings.queries
    return official


def adapted(model: keras.Model) -> Any:
    """The official adapter for TensorFlow 2, on the CPU.

    Its predictions are eager, its gradients compiled for each batch size; it passes NumPy arrays to
    PyTorch. Differs in two points, as there is no GPU: results are not moved, and images are
    detached.
    """
    import torch
    from pyautoattack.utils_tf2 import ModelAdapter

    class OnProcessor(ModelAdapter):
        def __call__(self, x: Any) -> Any:
            return self.predict(x)

    def detached(name: str) -> Any:
        def method(self: Any, x: Any, *labels: Any) -> Any:
            return getattr(ModelAdapter, name)(self, x.detach(), *labels)

        return method

    for name in (
        "predict",
        "grad_logits",
        "get_logits_loss_grad_xent",
        "get_logits_loss_grad_dlr",
        "get_logits_loss_grad_target",
        "get_grad_diff_logits_target",
    ):
        setattr(OnProcessor, name, detached(name))
    # The name that Python gives to `__tf_to_pt` of that class.
    OnProcessor._ModelAdapter__tf_to_pt = staticmethod(lambda t: torch.tensor(t.numpy()))
    with contextlib.redirect_stdout(sys.stderr):  # it prints its guess of the channels
        return OnProcessor(keras.Model(model.inputs, model.output["logits"]))


def bridged(model: keras.Model) -> Any:
    """The model as a PyTorch function of images with channels first, with gradients."""
    import torch

    @tf.function(reduce_retracing=True)
    def logits(x: tf.Tensor) -> tf.Tensor:
        return model(x, training=False)["logits"]

    @tf.function(reduce_retracing=True)
    def pulled_back(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(model(x, training=False)["logits"] * upstream)
        return tape.gradient(total, x)

    def channels_last(x: Any) -> tf.Tensor:
        return tf.constant(x.detach().numpy().transpose(0, 2, 3, 1))

    class Bridge(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: Any) -> Any:
            context.save_for_backward(x)
            return torch.tensor(logits(channels_last(x)).numpy())

        @staticmethod
        def backward(context: Any, upstream: Any) -> Any:
            (x,) = context.saved_tensors
            gradient = pulled_back(channels_last(x), tf.constant(upstream.numpy()))
            return torch.from_numpy(gradient.numpy().transpose(0, 3, 1, 2).copy())

    return Bridge.apply


def copied(model: keras.Model) -> Any:
    """A network of convolutions, max pools and dense layers, in PyTorch with the same weights.

    Raises:
        TypeError: another layer.
        ValueError: logits that differ from those of the model by more than 1e-4.
    """
    import torch

    network = torch.nn.Sequential(*(part for layer in model.layers for part in _in_torch(layer)))
    network.eval().requires_grad_(False)
    x = np.random.default_rng(0).random((4, *model.input_shape[1:]), np.float32)
    ours = model(x, training=False)["logits"].numpy()
    theirs = network(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    gap = float(abs(ours - theirs).max())
    if not gap <= _AGREE:
        raise ValueError(f"The logits of the copy in PyTorch are off by {gap:g}.")
    return network


def _in_torch(layer: Any) -> list[Any]:
    """A layer in PyTorch, with channels first and no dropout."""
    from torch import nn

    if isinstance(layer, (keras.layers.InputLayer, keras.layers.Dropout, keras.layers.Identity)):
        return []
    if isinstance(layer, keras.layers.MaxPooling2D):
        return [nn.MaxPool2d(layer.pool_size)]
    if isinstance(layer, keras.layers.Flatten):
        return [_flattened()]
    if isinstance(layer, keras.layers.Conv2D):
        return _weighted(nn.Conv2d, layer, (3, 2, 0, 1), layer.kernel_size, padding=layer.padding)
    if isinstance(layer, keras.layers.Dense):
        return _weighted(nn.Linear, layer, (1, 0))
    raise TypeError(f"{layer} has no copy in PyTorch here.")


def _weighted(kind: Any, layer: Any, order: tuple[int, ...], *given: Any, **named: Any) -> list:
    import torch

    kernel, bias = layer.get_weights()
    part = kind(*kernel.shape[-2:], *given, **named)
    part.weight.data = torch.from_numpy(kernel.transpose(order).copy())
    part.bias.data = torch.from_numpy(bias.copy())
    return [part, *([torch.nn.ReLU()] if layer.activation is keras.activations.relu else [])]


def _flattened() -> Any:
    """Flattens as Keras does, channels last."""
    import torch

    class Flattened(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x.permute(0, 2, 3, 1).flatten(1)

    return Flattened()
