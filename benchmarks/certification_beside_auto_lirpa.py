"""Bounds of small networks by auto_LiRPA, which the library's own are compared with.

    pip install torch==1.12.1 'numpy<2' auto_LiRPA    # Python 3.10, in an environment of its own
    python benchmarks/certification_beside_auto_lirpa.py --output=tests/certification/auto_lirpa.npz

The file holds the weights, in the layout of Keras, the images, and the lower bounds of the margins
by IBP, CROWN-IBP and CROWN; `tests/certification/test_auto_lirpa.py` builds the same networks in
Keras and compares. Nothing of this library is imported here.

Reference: Xu et al., "Automatic Perturbation Analysis for Scalable Certified Robustness and Beyond"
(2020).
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from auto_LiRPA import BoundedModule, BoundedTensor
from auto_LiRPA.perturbations import PerturbationLpNorm
from torch import nn

METHODS = ("IBP", "CROWN-IBP", "CROWN")
CLASSES, IMAGES, SIZE, CHANNELS = 3, 4, 8, 2


class Residual(nn.Module):
    """Two convolutions around which the first one's output is added."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(CHANNELS, 4, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.conv3 = nn.Conv2d(4, 4, 3, padding=1)
        self.dense = nn.Linear(4 * 4 * 4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits."""
        x = torch.relu(self.conv1(x))
        x = torch.relu(x + self.conv3(torch.relu(self.conv2(x))))
        return self.dense(torch.flatten(x, 1))


def dense() -> nn.Module:
    """Three hidden layers."""
    sizes = (SIZE * SIZE * CHANNELS, 20, 16, 12)
    hidden = [
        part
        for before, after in itertools.pairwise(sizes)
        for part in (nn.Linear(before, after), nn.ReLU())
    ]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(sizes[-1], CLASSES))


def convolution() -> nn.Module:
    """Strides, padding and none, batch normalization."""
    return nn.Sequential(
        nn.Conv2d(CHANNELS, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(5 * 2 * 2, 10),
        nn.ReLU(),
        nn.Linear(10, CLASSES),
    )


def max_pool() -> nn.Module:
    """A max pool between a convolution and dense layers."""
    return nn.Sequential(
        nn.Conv2d(CHANNELS, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 3 * 3, 8),
        nn.ReLU(),
        nn.Linear(8, CLASSES),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "dense": dense,
    "convolution": convolution,
    "residual": Residual,
    "max_pool": max_pool,
}
# A norm, a radius, and whether pixels stay in [0, 1]; auto_LiRPA cuts a ball in Linf only.
BALLS = {"linf": (math.inf, 0.03, True), "l2": (2.0, 0.2, False)}


def keras_weights(model: nn.Module) -> list[np.ndarray]:
    """The weights of the layers in their order, in the layout of Keras."""
    weights: list[torch.Tensor] = []
    channels = CHANNELS
    flat = False
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            weights += [layer.weight.permute(2, 3, 1, 0), layer.bias]
            channels = layer.out_channels
        elif isinstance(layer, nn.BatchNorm2d):
            weights += [layer.weight, layer.bias, layer.running_mean, layer.running_var]
        elif isinstance(layer, nn.Linear):
            kernel = layer.weight
            if not flat:  # pixels were flattened channels first
                side = math.isqrt(layer.in_features // channels)
                kernel = kernel.reshape(-1, channels, side, side).permute(0, 2, 3, 1)
                kernel = kernel.reshape(layer.out_features, -1)
                flat = True
            weights += [kernel.t(), layer.bias]
    return [weight.detach().numpy().copy() for weight in weights]


def randomize(model: nn.Module) -> None:
    """Statistics of batch normalization that are not 0 and 1, and larger weights."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
        elif isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.weight.data *= 1.5


def margins(model: nn.Module, x: torch.Tensor, y: torch.Tensor, ball: str) -> list[np.ndarray]:
    """Lower bounds `[images, classes]` of `z_y - z_j`, one array per method."""
    norm, radius, cut = BALLS[ball]
    limits = {"x_L": (x - radius).clamp(0, 1), "x_U": (x + radius).clamp(0, 1)} if cut else {}
    bounded = BoundedModule(model, torch.empty_like(x), bound_opts={"conv_mode": "matrix"})
    image = BoundedTensor(x, PerturbationLpNorm(norm=norm, eps=radius, **limits))
    eye = torch.eye(CLASSES)
    rows = eye[y][:, None] - eye[None]
    lower = []
    for method in METHODS:
        bound, _ = bounded.compute_bounds(x=(image,), C=rows, method=method, bound_upper=False)
        lower.append(bound.detach().numpy())
    return lower


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", required=True, help="The .npz file to write.")
    output = parser.parse_args().output
    arrays = {}
    for number, (name, build) in enumerate(NETWORKS.items()):
        torch.manual_seed(number)
        model = build().eval()
        randomize(model)
        x = torch.rand(IMAGES, CHANNELS, SIZE, SIZE)
        y = torch.arange(IMAGES) % CLASSES
        arrays[f"{name}/x"] = x.permute(0, 2, 3, 1).numpy()
        arrays[f"{name}/y"] = y.numpy()
        arrays[f"{name}/logits"] = model(x).detach().numpy()
        for position, weight in enumerate(keras_weights(model)):
            arrays[f"{name}/weight{position}"] = weight
        for ball, (_, radius, _) in BALLS.items():
            arrays[f"{name}/{ball}/radius"] = np.float64(radius)
            for method, lower in zip(METHODS, margins(model, x, y, ball), strict=True):
                arrays[f"{name}/{ball}/{method}"] = lower
                print(f"{name:12} {ball:5} {method:10} mean {lower.mean():.4f}")
    np.savez_compressed(output, **arrays)


if __name__ == "__main__":
    main()
