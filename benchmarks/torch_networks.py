"""The usual residual networks in PyTorch, with the names of layers of published robust models.

    pip install torch    # in an environment of its own
    python -m benchmarks.torch_networks --output=tests/models/pytorch/torch_networks.npz
    python -m benchmarks.torch_networks --full    # beside this library at full size: needs both

The file holds small networks with random weights and random statistics of batch norm, rounded to
half precision: their state dicts, images and logits. `tests/models/pytorch/test_load_torch.py`
loads them and compares. This program imports nothing of this library, except with `--full`.

Reference: Croce et al., "RobustBench: A Standardized Adversarial Robustness Benchmark" (2021).
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

IMAGES, SIZE, CLASSES = 2, 32, 5
# Multiples of a power of 2, which half precision holds.
MEAN, STD = (0.5, 0.484375, 0.4453125), (0.25, 0.2421875, 0.26171875)


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1, padding: int | None = None):
    """A convolution without bias, padded on all sides unless `padding` says otherwise."""
    padding = size // 2 if padding is None else padding
    return nn.Conv2d(inputs, outputs, size, stride, padding, bias=False)


def at_the_end(x: torch.Tensor, stride: int) -> torch.Tensor:
    """Pads for a 3x3 convolution as TensorFlow does: with a stride of 2 below and right only."""
    return F.pad(x, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))


class Basic(nn.Module):
    """The block of ResNet18."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Callable):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs), nn.BatchNorm2d(outputs)
        self.activation, self.shortcut = activation, nn.Sequential()
        if stride != 1 or inputs != outputs:
            norm = nn.BatchNorm2d(outputs)
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride), norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Adds the branch to the shortcut."""
        y = self.bn2(self.conv2(self.activation(self.bn1(self.conv1(x)))))
        return self.activation(y + self.shortcut(x))


class PreActivation(nn.Module):
    """A block of PreActResNet18, whose shortcut takes the first activation or the input."""

    of_input = False

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Callable):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, outputs, stride=stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv(outputs, outputs)
        self.activation = activation
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Adds the branch to the shortcut."""
        y = self.activation(self.bn1(x))
        if hasattr(self, "shortcut"):
            x = self.shortcut(x if self.of_input else y)
        return x + self.conv2(self.activation(self.bn2(self.conv1(y))))


class PreActivationOfInput(PreActivation):
    """The same, with a shortcut of the input."""

    of_input = True


class DeepMindPreActivation(nn.Module):
    """The block of DeepMind's PreActResNet18: a 3x3 shortcut, strides that pad at the end."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Callable):
        super().__init__()
        self.batchnorm_0, self.batchnorm_1 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv_2d_1 = conv(inputs, outputs, 3, stride, 0)
        self.conv_2d_2 = conv(outputs, outputs)
        self.stride, self.activation = stride, activation
        if stride != 1 or inputs != outputs:
            self.shortcut = conv(inputs, outputs, 3, stride, 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Adds the branch to the shortcut."""
        y = self.conv_2d_1(at_the_end(self.activation(self.batchnorm_0(x)), self.stride))
        y = self.conv_2d_2(self.activation(self.batchnorm_1(y)))
        return y + (self.shortcut(at_the_end(x, self.stride)) if hasattr(self, "shortcut") else x)


class Wide(nn.Module):
    """The block of a wide residual network in the code of TRADES."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Callable):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, outputs, stride=stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv(outputs, outputs)
        self.activation = activation
        self.convShortcut = conv(inputs, outputs, 1, stride) if inputs != outputs else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Adds the branch to the shortcut."""
        y = self.activation(self.bn1(x))
        x = self.convShortcut(y) if self.convShortcut is not None else x
        return x + self.conv2(self.activation(self.bn2(self.conv1(y))))


class DeepMindWide(nn.Module):
    """The block of DeepMind's wide residual networks: strides that pad at the end."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Callable):
        super().__init__()
        self.batchnorm_0, self.batchnorm_1 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv_0 = conv(inputs, outputs, 3, stride, 0)
        self.conv_1 = conv(outputs, outputs)
        self.shortcut = conv(inputs, outputs, 1, stride) if inputs != outputs else None
        self.stride, self.activation = stride, activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Adds the branch to the shortcut."""
        y = self.activation(self.batchnorm_0(x))
        x = self.shortcut(y) if self.shortcut is not None else x
        y = self.conv_0(at_the_end(y, self.stride))
        return x + self.conv_1(self.activation(self.batchnorm_1(y)))


class Group(nn.Module):
    """A stage whose blocks are inside a module of a given name."""

    def __init__(self, name: str, blocks: nn.Sequential):
        super().__init__()
        self.add_module(name, blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Runs the blocks."""
        return next(self.children())(x)


@dataclasses.dataclass(frozen=True)
class Names:
    """Where an implementation keeps its layers; empty for a layer that it does not have."""

    stem: str = "conv1"
    stem_norm: str = ""
    stages: str = "layer{next}"
    group: str = ""
    last_norm: str = ""
    head: str = "linear"
    buffers: tuple[str, ...] = ()


class Network(nn.Module):
    """Normalization, a stem, stages of blocks, global pooling, a dense layer."""

    def __init__(
        self,
        names: Names,
        block: type[nn.Module],
        filters: Sequence[int],
        depth: int,
        activation: Callable = F.relu,
        unused: str = "",
    ):
        super().__init__()
        self.names, self.activation = names, activation
        for name, values in zip(names.buffers, (MEAN, STD), strict=False):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1))
        self.add_module(names.stem, conv(3, filters[0]))
        if names.stem_norm:
            self.add_module(names.stem_norm, nn.BatchNorm2d(filters[0]))
        stages = []
        for stage, (inputs, outputs) in enumerate(itertools.pairwise(filters)):
            first = block(inputs, outputs, 1 if stage == 0 else 2, activation)
            rest = [block(outputs, outputs, 1, activation) for _ in range(depth - 1)]
            blocks: nn.Module = nn.Sequential(first, *rest)
            stages.append(Group(names.group, blocks) if names.group else blocks)
        if "{" in names.stages:
            for stage, blocks in enumerate(stages):
                self.add_module(names.stages.format(stage=stage, next=stage + 1), blocks)
        else:
            self.add_module(names.stages, nn.Sequential(*stages))
        if unused:  # a layer that the published code has and does not call
            self.add_module(unused, conv(filters[0], filters[0]))
        self.stages = [stages]  # in a list, so that they are not registered again
        if names.last_norm:
            self.add_module(names.last_norm, nn.BatchNorm2d(filters[-1]))
        self.add_module(names.head, nn.Linear(filters[-1], CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits."""
        names = self.names
        if names.buffers:
            x = (x - getattr(self, names.buffers[0])) / getattr(self, names.buffers[1])
        x = getattr(self, names.stem)(x)
        if names.stem_norm:
            x = self.activation(getattr(self, names.stem_norm)(x))
        for stage in self.stages[0]:
            x = stage(x)
        if names.last_norm:
            x = self.activation(getattr(self, names.last_norm)(x))
        return getattr(self, names.head)(x.mean(dim=(2, 3)))


RESNET = Names(stem_norm="bn1")
PRE_ACT = Names()
PRE_ACT_NORM = Names(last_norm="bn", buffers=("mu", "sigma"))
PRE_ACT_DEEPMIND = Names("conv_2d", "", "layer_{stage}", "", "batchnorm", "logits", ("mean", "std"))
WIDE = Names("conv1", "", "block{next}", "layer", "bn1", "fc")
WIDE_DEEPMIND = Names("init_conv", "", "layer", "block", "batchnorm", "logits", ("mean", "std"))


def networks(width: int = 2, widen: float = 0.25, depth: int = 2) -> dict[str, Network]:
    """The networks by name.

    Args:
        width: filters of the stem of the networks with 18 layers; 64 as published.
        widen: factor of the wide networks; 10 as published.
        depth: blocks in a stage of the wide networks; 4 or 5 as published.
    """
    filters = [width, width, 2 * width, 4 * width, 8 * width]
    wide = [16, *(round(widen * number) for number in (16, 32, 64))]
    return {
        "resnet18": Network(RESNET, Basic, filters, 2),
        "resnet18_silu": Network(RESNET, Basic, filters, 2, F.silu),
        "pre_act_resnet18": Network(PRE_ACT_NORM, PreActivation, filters, 2),
        "pre_act_resnet18_of_input": Network(PRE_ACT, PreActivationOfInput, filters, 2),
        "pre_act_resnet18_deepmind": Network(
            PRE_ACT_DEEPMIND, DeepMindPreActivation, filters, 2, F.silu
        ),
        "wide_resnet": Network(WIDE, Wide, wide, depth, unused="sub_block1"),
        "wide_resnet_deepmind": Network(WIDE_DEEPMIND, DeepMindWide, wide, depth, F.silu),
    }


def randomize(model: nn.Module, seed: int = 0) -> None:
    """Random weights and statistics, rounded to half precision."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.rpartition(".")[2] in ("num_batches_tracked", "mean", "std", "mu", "sigma"):
            continue
        noise = torch.randn(value.shape, generator=generator)
        if value.ndim > 1:
            noise *= value[0].numel() ** -0.5
        elif name.endswith(("running_mean", "bias")):
            noise *= 0.3
        else:  # scales and variances
            noise = 1 + 0.5 * noise.abs()
        value.copy_(noise.half().float())


def example(model: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Images `[n, height, width, channels]` and their logits."""
    x = torch.rand(IMAGES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return x.permute(0, 2, 3, 1).numpy(), model.eval()(x).numpy()


def golden(output: str) -> None:
    """Writes the small networks, each state dict as its names and shapes and one array of values.

    Weights are in half precision, to which they were rounded.
    """
    arrays = {}
    for seed, (name, model) in enumerate(networks().items()):
        randomize(model, seed)
        state = {key: value.numpy() for key, value in model.state_dict().items()}
        shapes = {key: value.shape for key, value in state.items()}
        arrays[f"{name}/shapes"] = np.array(json.dumps(shapes))
        flat = np.concatenate([value.ravel() for value in state.values()])
        arrays[f"{name}/values"] = flat.astype("float16")
        arrays["x"], arrays[f"{name}/logits"] = example(model)
        print(f"{name:28} logits {arrays[f'{name}/logits'].std():.2f}")
    np.savez_compressed(output, **arrays)


def compare() -> None:
    """Prints the largest difference of the logits from this library's, at full size."""
    import keras_robust as kr

    options = {
        "resnet18_silu": {"activation": "silu"},
        "pre_act_resnet18_of_input": {"shortcut": "input"},
        "pre_act_resnet18_deepmind": {"activation": "silu"},
        "wide_resnet_deepmind": {"activation": "silu"},
    }
    for seed, (name, model) in enumerate(networks(64, 10, 4).items()):
        randomize(model, seed)
        x, logits = example(model)
        architecture = next(a for a in ("pre_act_resnet18", "resnet18", "wide_resnet") if a in name)
        mine = kr.models.load_torch(model.state_dict(), architecture, **options.get(name, {}))
        error = np.abs(mine(x)["logits"].numpy() - logits).max()
        size = mine.count_params()
        print(
            f"{name:28} {size:>11,} weights, logits {np.abs(logits).max():.3g}, error {error:.1e}"
        )


def main() -> None:
    """Writes the file, or compares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", help="The .npz file to write.")
    parser.add_argument("--full", action="store_true", help="Compare at full size.")
    arguments = parser.parse_args()
    if arguments.output:
        golden(arguments.output)
    if arguments.full:
        compare()


if __name__ == "__main__":
    main()
