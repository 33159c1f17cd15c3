"""Names of layers in published PyTorch networks, and the layers of this package that they are."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

_BLOCK = re.compile(r"stage(\d+)_block(\d+)_(\w+)")


@dataclasses.dataclass(frozen=True)
class Scheme:
    """The names that one implementation gives to the layers of an architecture.

    Attributes:
        layers: layer of the Keras model outside of blocks -> possible names of the module.
        block: the beginning of the modules of a block, of `{stage}` and `{block}`, both from 0.
        parts: layer of a block -> possible names of the module.
        options: options of the architecture that this implementation implies.
        unused: beginnings of modules that the implementation has and does not use.
    """

    layers: dict[str, tuple[str, ...]]
    block: str
    parts: dict[str, tuple[str, ...]]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    unused: tuple[str, ...] = ()

    def prefixes(self, names: Iterable[str]) -> list[str]:
        """What stands before the names of the modules: `""`, `"module."`, and so on."""
        names = set(names)
        stems = [f"{stem}.weight" for stem in self.layers["stem_conv"]]
        found = {
            name[: -len(stem)]
            for name in names
            for stem in stems
            if name == stem or name.endswith(f".{stem}")
        }
        heads = self.layers["logits"]
        return sorted(p for p in found if any(f"{p}{head}.weight" in names for head in heads))

    def module(self, layer: str, names: Mapping[str, Any], prefix: str) -> str:
        """The module of a layer; of several possible names the one that there is, or the first."""
        match = _BLOCK.fullmatch(layer)
        if match:
            stage, block, part = int(match[1]) - 1, int(match[2]) - 1, match[3]
            prefix += self.block.format(stage=stage, block=block, next=stage + 1)
        options = self.parts[part] if match else self.layers[layer]
        there = (prefix + one for one in options if f"{prefix}{one}.weight" in names)
        return next(there, prefix + options[0])

    def blocks(self, names: Iterable[str], prefix: str) -> int:
        """The number of blocks of the first stage."""
        names = set(names)
        count = 0
        while any(f"{self._first(count, prefix)}{one}.weight" in names
                  for one in self.parts["conv1"]):  # fmt: skip
            count += 1
        return count

    def first_convolution(self, names: Mapping[str, np.ndarray], prefix: str) -> np.ndarray | None:
        """The kernel of the first convolution of the first block, if there is one."""
        return names.get(f"{self.module('stage1_block1_conv1', names, prefix)}.weight")

    def _first(self, block: int, prefix: str) -> str:
        return prefix + self.block.format(stage=0, block=block, next=1)


_HEADS = ("linear", "fc")
_PLAIN = {"conv1": ("conv1",), "bn1": ("bn1",), "conv2": ("conv2",), "bn2": ("bn2",)}
_SHORTCUT = {
    "shortcut": ("shortcut.0", "downsample.0"),
    "shortcut_bn": ("shortcut.1", "downsample.1"),
}
# The networks of DeepMind and of those who build on them: Gowal et al. (2020, 2021), Rebuffi et al.
# (2021), Rade and Moosavi-Dezfooli (2021), Pang et al. (2022), Wang et al. (2023).
_DEEPMIND_WIDE = Scheme(
    {"stem_conv": ("init_conv",), "last_bn": ("batchnorm",), "logits": ("logits",)},
    "layer.{stage}.block.{block}.",
    {
        "bn1": ("batchnorm_0",), "conv1": ("conv_0",), "bn2": ("batchnorm_1",),
        "conv2": ("conv_1",), "shortcut": ("shortcut",),
    },
    {"padding": "same"},
)  # fmt: skip
_DEEPMIND_PRE_ACT = Scheme(
    {"stem_conv": ("conv_2d",), "last_bn": ("batchnorm",), "logits": ("logits",)},
    "layer_{stage}.{block}.",
    {
        "bn1": ("batchnorm_0",), "conv1": ("conv_2d_1",), "bn2": ("batchnorm_1",),
        "conv2": ("conv_2d_2",), "shortcut": ("shortcut",),
    },
    {"padding": "same", "shortcut": "input_3x3"},
)  # fmt: skip
# Of the code of TRADES, and of most of RobustBench.
_WIDE = Scheme(
    {"stem_conv": ("conv1",), "last_bn": ("bn1",), "logits": ("fc", "linear")},
    "block{next}.layer.{block}.",
    {**_PLAIN, "shortcut": ("convShortcut", "shortcut.0", "shortcut")},
    unused=("sub_block1.",),
)
_RESNET = Scheme(
    {"stem_conv": ("conv1",), "stem_bn": ("bn1",), "logits": _HEADS},
    "layer{next}.{block}.",
    {**_PLAIN, **_SHORTCUT},
)
_PRE_ACT = Scheme(
    {"stem_conv": ("conv1",), "last_bn": ("bn",), "logits": _HEADS},
    "layer{next}.{block}.",
    {**_PLAIN, **_SHORTCUT},
)
# Architecture -> the implementations whose names are known.
SCHEMES: dict[str, tuple[Scheme, ...]] = {
    "resnet18": (_RESNET,),
    "pre_act_resnet18": (_PRE_ACT, _DEEPMIND_PRE_ACT),
    "wide_resnet": (_WIDE, _DEEPMIND_WIDE),
    "wrn_34_10": (_WIDE, _DEEPMIND_WIDE),
}
