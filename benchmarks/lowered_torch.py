"""The network and attacks of `lowered.py` in PyTorch, compiled, timed on the same device.

    python -m benchmarks.lowered_torch --arrays=DIR/arrays.npz    # needs NumPy and PyTorch

The directory is that of `lowered.py --write`. PGD and the step of TRADES are written here, APGD and
Square are those of the official AutoAttack (`pyautoattack`), and are left out without it. Float32
is without TF32; bfloat16 is autocast.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import torch_networks

RADIUS, STEP, SMALL_RADIUS = 8 / 255, 2 / 255, 1e-5
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SIZES = {"PGD-20": (128, 1024), "APGD-100": (512,), "Square-50": (128,), "TRADES": (128,)}
Forward = Callable[[torch.Tensor], torch.Tensor]


def network(arrays: Any) -> nn.Module:
    """ResNet18 with the weights of the arrays."""
    kernel = arrays["stem_conv/kernel"]
    net = torch_networks.networks(width=kernel.shape[-1])["resnet18"]
    inputs, classes = arrays["logits/kernel"].shape
    net.linear = nn.Linear(inputs, classes)
    state = net.state_dict()
    for name in list(state):
        if not name.endswith("num_batches_tracked"):
            value = arrays[keras_name(name)].astype(np.float32)
            order = (3, 2, 0, 1) if value.ndim == 4 else range(value.ndim)[::-1]
            state[name] = torch.from_numpy(value.transpose(order).copy())
    net.load_state_dict(state)
    return net


def keras_name(name: str) -> str:
    """The path of a weight in Keras.

    Example:
        >>> keras_name("layer2.0.shortcut.1.running_var")
        'stage2_block1_shortcut_bn/moving_variance'
    """
    layer, _, kind = name.rpartition(".")
    layer = (
        re.sub(r"layer(\d)\.(\d)\.", lambda m: f"stage{m[1]}_block{int(m[2]) + 1}_", layer)
        .replace("shortcut.0", "shortcut")
        .replace("shortcut.1", "shortcut_bn")
    )
    layer = {"conv1": "stem_conv", "bn1": "stem_bn", "linear": "logits"}.get(layer, layer)
    is_norm = re.search(r"bn\d?$", layer) is not None
    weight, bias = ("gamma", "beta") if is_norm else ("kernel", "bias")
    of = {"weight": weight, "bias": bias}
    of |= {"running_mean": "moving_mean", "running_var": "moving_variance"}
    return f"{layer}/{of[kind]}"


def in_dtype(net: nn.Module, dtype: torch.dtype, device: str) -> Forward:
    """The network's logits in float32, computed in `dtype`."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            return net(x.contiguous(memory_format=torch.channels_last)).float()

    return forward


def pgd(forward: Forward, x: torch.Tensor, loss: Callable, steps: int = 20) -> torch.Tensor:
    """Projected gradient ascent on `loss(logits)` from a uniform start."""
    x_adv = (x + torch.empty_like(x).uniform_(-RADIUS, RADIUS)).clamp(0, 1)
    for _ in range(steps):
        x_adv.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(forward(x_adv)), x_adv)
        moved = x_adv.detach() + STEP * gradient.sign()
        x_adv = torch.min(torch.max(moved, x - RADIUS), x + RADIUS).clamp(0, 1)
    return x_adv.detach()


def trades_step(
    net: nn.Module, forward: Forward, optimizer: torch.optim.Optimizer
) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """A step of TRADES: ten steps on the divergence in inference mode, then an update."""

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        net.eval()
        with torch.no_grad():
            clean = forward(x).softmax(1)
        x_adv = pgd(
            forward,
            x,
            lambda logits: F.kl_div(logits.log_softmax(1), clean, reduction="sum"),
            steps=10,
        )
        net.train()
        logits = forward(x)
        divergence = F.kl_div(
            forward(x_adv).log_softmax(1), logits.softmax(1), reduction="batchmean"
        )
        optimizer.zero_grad()
        (F.cross_entropy(logits, y) + 6.0 * divergence).backward()
        optimizer.step()

    return step


def official(
    forward: Forward, device: str
) -> dict[str, Callable[[torch.Tensor, torch.Tensor], Any]]:
    """APGD and Square of the official code, if it is installed."""
    try:
        from pyautoattack.autopgd_base import APGDAttack
        from pyautoattack.square import SquareAttack
    except ImportError:
        return {}
    apgd = APGDAttack(forward, n_iter=100, norm="Linf", eps=RADIUS, seed=0, device=device)
    square = SquareAttack(
        forward,
        norm="Linf",
        n_queries=50,
        eps=SMALL_RADIUS,
        p_init=0.8,
        seed=0,
        device=device,
    )
    return {"APGD-100": apgd.perturb, "Square-50": square.perturb}


def programs(
    arrays: Any, dtype: torch.dtype, device: str, compile_it: bool
) -> Iterator[tuple[str, Callable[[torch.Tensor, torch.Tensor], Any]]]:
    """The programs by name."""
    net = network(arrays).to(device, memory_format=torch.channels_last)
    forward = in_dtype(torch.compile(net, dynamic=False) if compile_it else net, dtype, device)
    net.eval()
    yield (
        "PGD-20",
        lambda x, y: pgd(forward, x, lambda logits: F.cross_entropy(logits, y, reduction="sum")),
    )
    yield from official(forward, device).items()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    yield "TRADES", trades_step(net, forward, optimizer)


def timed(call: Callable[[], Any], device: str, repeats: int) -> float:
    """The median seconds of a call, after one to warm up."""

    def once() -> float:
        begin = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    return statistics.median([once() for _ in range(1 + repeats)][1:])


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arrays", required=True, help="arrays.npz of `lowered.py --write`")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of each program")
    parser.add_argument("--compiled_only", action="store_true", help="not PyTorch as it is")
    parser.add_argument("--programs", default="", help="a pattern for the names of programs")
    parser.add_argument("--batch", type=int, help="of all programs, instead of the usual ones")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    print(f"PyTorch {torch.__version__} on {name}", flush=True)
    print("| program | images/s as it is | images/s compiled |\n|---|---|---|", flush=True)
    with np.load(options.arrays) as arrays:
        x = torch.from_numpy(arrays["x"].transpose(0, 3, 1, 2).copy()).float().to(device) / 255
        y = torch.from_numpy(arrays["y"]).long().to(device)
        for dtype_name, dtype in DTYPES.items():
            rates: dict[str, list[str]] = {}
            for compile_it in (False, True)[options.compiled_only :]:
                for program, call in programs(arrays, dtype, device, compile_it):
                    if not re.search(options.programs, program):
                        continue
                    for batch in [options.batch] if options.batch else SIZES[program]:
                        seconds = timed(
                            lambda c=call, b=batch: c(x[:b], y[:b]), device, options.repeats
                        )
                        row = f"{program}, {dtype_name}, {batch} images"
                        rates.setdefault(row, []).append(f"{batch / seconds:,.0f}")
                        print(f"... {row}: {seconds:.3f} s", flush=True)
            for row, values in rates.items():
                print(f"| {row} | {' | '.join(values)} |", flush=True)


if __name__ == "__main__":
    main()
