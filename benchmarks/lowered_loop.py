"""The training that `lowered_training.py` lowered, run and judged by JAX, without TensorFlow.

    python -m benchmarks.lowered_loop --train=DIR --seed=0 --seed=1

It needs NumPy, JAX, this file and `lowered.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lowered import Arrays, arguments_of, configure, loaded, read, wide

STATISTICS_BATCHES = 20


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `lowered_training.py` says about a training.

    Attributes:
        epochs: how often the training images are seen.
        images: how many of them, the first.
        batch: images in a step.
        augment: `"none"` or `"pad_crop_flip"`.
        averaged: a weight -> its average, which is what is judged.
        statistics: the batch-norm statistics, in the order of the programs' results.
    """

    epochs: int
    images: int
    batch: int
    augment: str
    averaged: dict[str, str]
    statistics: list[str]


class Training:
    """A lowered training.

    Args:
        directory: that of `lowered_training.py --write`.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self.plan = Plan(**json.loads((directory / "plan.json").read_text()))
        programs, self.arrays = read(directory)
        self.programs = {program.name: program for program in programs}
        with np.load(directory.parent / "data.npz") as file:
            self.data = {name: file[name] for name in file.files}
        self._compiled: dict[str, Callable[..., Any]] = {}

    def run(self, seed: int) -> None:
        """Trains with one seed, judges the result, and writes the weights beside the programs."""
        title, prefix, begin = (
            f"{self.directory.name}, seed {seed}",
            f"{seed}:",
            time.perf_counter(),
        )
        own = {n[len(prefix) :]: v for n, v in self.arrays.items() if n.startswith(prefix)}
        state = self._trained(self.arrays | own, seed, title)
        weights = state | {name: state[mean] for name, mean in self.plan.averaged.items()}
        if self.plan.averaged and self.plan.statistics:
            weights |= self._statistics(weights)
        np.savez(self.directory / f"seed{seed}.npz", **{name: weights[name] for name in own})
        print(f"{title}: trained in {time.perf_counter() - begin:.0f} s", flush=True)
        verdicts = self._judged(weights)
        lowest = np.min(list(verdicts.values()), axis=0)
        shown = {name: round(float(correct.mean()), 4) for name, correct in verdicts.items()}
        print(f"{title}: robust {lowest.mean():.4f} of {len(lowest)}, {shown}", flush=True)

    def _call(self, name: str, arrays: Arrays) -> Any:
        """The results of a program, which is compiled once."""
        import jax

        program = self.programs[name]
        arguments = [jax.device_put(value) for value in arguments_of(program, arrays)]
        if name not in self._compiled:
            self._compiled[name] = jax.jit(loaded(program, self.directory, arguments))
        return self._compiled[name](*arguments)

    def _trained(self, arrays: Arrays, seed: int, title: str) -> Arrays:
        """The state after all epochs."""
        import jax
        import jax.numpy as jnp

        plan, program = self.plan, self.programs["step"]
        names = program.arguments[2:]
        state = [jnp.asarray(wide(arrays[name])) for name in names]
        x, y = (jnp.asarray(self.data[name][: plan.images]) for name in ("x_train", "y_train"))
        call = loaded(program, self.directory, [x[: plan.batch], y[: plan.batch], *state])
        places = [program.state[name] for name in names]

        def step(state: list, batch: tuple) -> tuple[list, Any]:
            chosen, key = batch
            images = x[chosen]
            if plan.augment == "pad_crop_flip":
                images = cropped(images, key)
            results = call(images, y[chosen], *state)
            return [results[place] for place in places], jnp.stack(results[:2])

        epoch = jax.jit(lambda state, batches: jax.lax.scan(step, state, batches), donate_argnums=0)
        steps = plan.images // plan.batch
        random = np.random.default_rng(seed)
        for number in range(plan.epochs):
            begin = time.perf_counter()
            order = random.permutation(plan.images)[: steps * plan.batch].reshape(steps, plan.batch)
            keys = jax.random.split(jax.random.key(seed * 1000 + number), steps)
            state, found = epoch(state, (jnp.asarray(order), keys))
            loss, accuracy = (float(value) for value in found[-1])
            print(
                f"{title}, epoch {number + 1}: loss {loss:.4f}, robust accuracy {accuracy:.4f}, "
                f"{time.perf_counter() - begin:.1f} s",
                flush=True,
            )
        return dict(zip(names, map(np.asarray, state), strict=True))

    def _statistics(self, weights: Arrays) -> Arrays:
        """The batch-norm statistics of weights: the means over batches, as of the library."""
        found: Arrays = {}
        for name in ("statistics_clean", "statistics_all"):
            sums: list[np.ndarray] = []
            for number in range(STATISTICS_BATCHES):
                part = slice(number * self.plan.batch, (number + 1) * self.plan.batch)
                batch = {"x": self.data["x_train"][part], "y": self.data["y_train"][part]}
                batch["seed"] = np.array([0, number], np.int32)
                values = self._call(name, weights | found | batch)
                values = [np.asarray(value) for value in values[: len(self.plan.statistics)]]
                sums = [a + b for a, b in zip(sums, values, strict=True)] if sums else values
            means = [total / STATISTICS_BATCHES for total in sums]
            found = dict(zip(self.plan.statistics, means, strict=True))
        return found

    def _judged(self, weights: Arrays) -> dict[str, np.ndarray]:
        """For clean images and for each attack, whether the images are classified correctly."""
        seed = np.array([0, 0], np.int32)
        arrays = weights | {"x": self.data["x"], "y": self.data["y"], "seed": seed}
        images = {"clean": arrays["x"].astype(np.float32) / 255}
        for name in self.programs:
            if name.startswith("attack_"):
                images[name.removeprefix("attack_")] = self._call(name, arrays)[0]
        return {
            name: np.asarray(self._call("verdict", arrays | {"x": x})[0], bool)
            for name, x in images.items()
        }


def cropped(images: Any, key: Any) -> Any:
    """Random crops of padded images, half of them mirrored."""
    import jax
    import jax.numpy as jnp

    padded = jnp.pad(images, [(0, 0), (4, 4), (4, 4), (0, 0)])
    corner, coin = jax.random.split(key)
    corners = jax.random.randint(corner, [len(images), 2], 0, 9)

    def crop(image: Any, corner: Any) -> Any:
        return jax.lax.dynamic_slice(image, [corner[0], corner[1], 0], images.shape[1:])

    mirrored = jax.random.bernoulli(coin, 0.5, [len(images), 1, 1, 1])
    found = jax.vmap(crop)(padded, corners)
    return jnp.where(mirrored, found[:, :, ::-1], found)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains and judges."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--train", type=Path, metavar="DIR", required=True, help="the programs")
    parser.add_argument("--seed", type=int, action="append", help="may be repeated; default 0")
    options = parser.parse_args(arguments)
    configure()
    training = Training(options.train)
    for seed in options.seed or [0]:
        training.run(seed)


if __name__ == "__main__":
    main()
