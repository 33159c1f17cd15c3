"""Attacks and training steps as StableHLO, run by JAX on any device, without TensorFlow.

    python -m benchmarks.lowered --write=DIR                # with this library, on any machine
    python benchmarks/lowered.py --run=DIR --repeats=5      # with NumPy and JAX alone

`--write` writes programs of `lowered_programs`: what XLA makes of an attack or a step of training,
with weights and images as arrays beside. `--run` needs this one file and the directory: it compiles
the programs, compares their results with those that TensorFlow found, and prints images per second.
`benchmarks/lowered_torch.py` times the same network and attacks in PyTorch.

The format: `programs.json`, a list of programs (`Program`), and `arrays.npz`.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
COMPILERS = 4  # at a time: each tries kernels on the device
ENOUGH = 10.0  # seconds of repeats of a program


@dataclasses.dataclass(frozen=True)
class Program:
    """A lowered function.

    Attributes:
        name: what it computes.
        module: the file of its StableHLO.
        arguments: the names of its arguments in `arrays.npz`; of images and labels the first
            `images`.
        results: shapes and dtypes of its results.
        images: images per call.
        expected: name of an array -> the place of the result that it is compared with.
        state: the place of an argument -> the place of the result that replaces it in the next
            call; empty of a program without state.
    """

    name: str
    module: str
    arguments: list[str]
    results: list[tuple[list[int], str]]
    images: int
    expected: dict[str, int] = dataclasses.field(default_factory=dict)
    state: dict[str, int] = dataclasses.field(default_factory=dict)


def read(directory: Path) -> tuple[list[Program], Arrays]:
    """The programs of a directory, and their arrays."""
    programs = [
        Program(**fields) for fields in json.loads((directory / "programs.json").read_text())
    ]
    with np.load(directory / "arrays.npz") as file:
        return programs, {name: file[name] for name in file.files}


def arguments_of(program: Program, arrays: Arrays) -> list[np.ndarray]:
    """The arguments of a program; stored halves are widened, batches cut to its size."""
    values = []
    for name in program.arguments:
        value = np.asarray(_wide(arrays[name]))
        values.append(value[: program.images] if name in ("x", "y") else value)
    return values


def loaded(program: Program, directory: Path, arguments: Sequence[Any]) -> Callable[..., Any]:
    """A program as a function of JAX; it can be called inside `jax.jit` and `jax.lax.scan`."""
    import jax
    import jax.numpy as jnp

    def same_signature(*_: Any) -> tuple[Any, ...]:
        return tuple(jnp.zeros(shape, dtype) for shape, dtype in program.results)

    # An export of JAX's own whose module is replaced: no other public way leads from StableHLO to
    # a function of JAX.
    shapes = [jax.ShapeDtypeStruct(np.shape(a), a.dtype) for a in arguments]
    exported = jax.export.export(jax.jit(same_signature, keep_unused=True))(*shapes)
    exported = dataclasses.replace(
        exported,
        mlir_module_serialized=(directory / program.module).read_bytes(),
        module_kept_var_idx=tuple(range(len(shapes))),
    )
    return exported.call


def compiled(program: Program, directory: Path, arrays: Arrays) -> tuple[Callable[..., Any], list]:
    """A compiled program, and its arguments on the device."""
    import jax

    arguments = [jax.device_put(value) for value in arguments_of(program, arrays)]
    call = jax.jit(loaded(program, directory, arguments))
    return call.lower(*arguments).compile(), arguments


def difference(program: Program, results: Sequence[Any], arrays: Arrays) -> str:
    """How far the results are from those of TensorFlow, in words.

    Raises:
        FloatingPointError: a result is not finite.
    """
    for result in results:
        if not np.all(np.isfinite(np.asarray(result, np.float64))):
            raise FloatingPointError(f"{program.name}: a result is not finite.")
    found = []
    for name, place in program.expected.items():
        distance = np.abs(np.asarray(results[place], np.float64) - arrays[name])
        share = np.mean(distance > 1e-5)
        found.append(f"at most {distance.max():.1e}, {100 * share:.2f} % above 1e-5")
    return "; ".join(found) or "finite"


def timed(call: Callable[..., Any], arguments: list[Any], repeats: int) -> tuple[float, Any]:
    """The median seconds of a call after one to warm up, and its results."""
    import jax

    results = jax.block_until_ready(call(*arguments))
    taken = []
    for _ in range(repeats):
        if sum(taken) > ENOUGH:
            break
        begin = time.perf_counter()
        jax.block_until_ready(call(*arguments))
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken), results


def run(directory: Path, repeats: int, only: str = "") -> None:
    """Compiles, checks and times the programs of a directory; prints a Markdown table.

    Args:
        directory: that of `--write`.
        repeats: timed calls of each program.
        only: a regular expression for the names of programs.
    """
    import jax

    programs, arrays = read(directory)
    programs = [program for program in programs if re.search(only, program.name)]
    print(f"JAX {jax.__version__} on {jax.devices()[0].device_kind}", flush=True)
    print("| program | images/s | seconds a call | to compile | beside TensorFlow |")
    print("|---|---|---|---|---|", flush=True)

    def prepared(program: Program) -> tuple[Any, list, float] | Exception:
        begin = time.perf_counter()
        try:
            call, arguments = compiled(program, directory, arrays)
        except Exception as error:  # whatever this device's compiler says; the others run
            return error
        seconds = time.perf_counter() - begin
        print(f"compiled in {seconds:.0f} s: {program.name}", file=sys.stderr, flush=True)
        return call, arguments, seconds

    # Compilers run side by side; programs are timed one by one, after all are compiled.
    with concurrent.futures.ThreadPoolExecutor(COMPILERS) as pool:
        ready = list(pool.map(prepared, programs))
    for program, found in zip(programs, ready, strict=True):
        if isinstance(found, Exception):
            print(f"| {program.name} | failed: {str(found)[:200]!r} |", flush=True)
            continue
        call, arguments, compiling = found
        seconds, results = timed(call, arguments, repeats)
        print(
            f"| {program.name} | {program.images / seconds:,.0f} | {seconds:.4f} | "
            f"{compiling:.0f} s | {difference(program, results, arrays)} |",
            flush=True,
        )


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


STATISTICS_BATCHES = 20


def train(directory: Path, seed: int) -> None:
    """Trains with one seed, judges the result, and writes the weights beside the programs."""
    plan = Plan(**json.loads((directory / "plan.json").read_text()))
    programs, arrays = read(directory)
    named = {program.name: program for program in programs}
    with np.load(directory.parent / "data.npz") as file:
        data = {name: file[name] for name in file.files}
    own = {name[len(f"{seed}:") :]: v for name, v in arrays.items() if name.startswith(f"{seed}:")}
    begin = time.perf_counter()
    state = _trained(named["step"], directory, arrays | own, data, plan, seed)
    weights = state | {name: state[average] for name, average in plan.averaged.items()}
    if plan.averaged and plan.statistics:
        weights |= _statistics(named, directory, weights, data, plan)
    np.savez(directory / f"seed{seed}.npz", **{name: weights[name] for name in own})
    print(f"{directory.name}, seed {seed}: trained in {time.perf_counter() - begin:.0f} s")
    verdicts = _judged(named, directory, weights, data)
    lowest = np.min(list(verdicts.values()), axis=0)
    shown = {**{name: round(float(v.mean()), 4) for name, v in verdicts.items()}}
    print(f"{directory.name}, seed {seed}: robust {lowest.mean():.4f} of {len(lowest)}, {shown}")


def _trained(
    program: Program, directory: Path, arrays: Arrays, data: Arrays, plan: Plan, seed: int
) -> Arrays:
    """The state after all epochs."""
    import jax
    import jax.numpy as jnp

    names = program.arguments[2:]
    state = [jnp.asarray(_wide(arrays[name])) for name in names]
    x, y = (jnp.asarray(data[name][: plan.images]) for name in ("x_train", "y_train"))
    call = loaded(program, directory, [x[: plan.batch], y[: plan.batch], *state])
    places = [program.state[name] for name in names]

    def step(state: list, batch: tuple) -> tuple[list, Any]:
        chosen, key = batch
        images = x[chosen]
        if plan.augment == "pad_crop_flip":
            images = _cropped(images, key)
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
            f"{directory.name}, seed {seed}, epoch {number + 1}: loss {loss:.4f}, robust accuracy "
            f"{accuracy:.4f}, {time.perf_counter() - begin:.1f} s",
            flush=True,
        )
    return dict(zip(names, map(np.asarray, state), strict=True))


def _cropped(images: Any, key: Any) -> Any:
    """Random crops of padded images, half of them mirrored."""
    import jax
    import jax.numpy as jnp

    padded = jnp.pad(images, [(0, 0), (4, 4), (4, 4), (0, 0)])
    corner, coin = jax.random.split(key)
    corners = jax.random.randint(corner, [len(images), 2], 0, 9)

    def crop(image: Any, corner: Any) -> Any:
        return jax.lax.dynamic_slice(image, [corner[0], corner[1], 0], images.shape[1:])

    cropped = jax.vmap(crop)(padded, corners)
    mirrored = jax.random.bernoulli(coin, 0.5, [len(images), 1, 1, 1])
    return jnp.where(mirrored, cropped[:, :, ::-1], cropped)


def _statistics(
    named: dict[str, Program], directory: Path, weights: Arrays, data: Arrays, plan: Plan
) -> Arrays:
    """The batch-norm statistics of weights: the means over batches, as of the library."""
    found: Arrays = {}
    for name in ("statistics_clean", "statistics_all"):
        sums: list[np.ndarray] = []
        for number in range(STATISTICS_BATCHES):
            part = slice(number * plan.batch, (number + 1) * plan.batch)
            batch = {"x": data["x_train"][part], "y": data["y_train"][part]}
            batch["seed"] = np.array([0, number], np.int32)
            values = _called(named[name], directory, weights | found | batch)
            values = [np.asarray(value) for value in values[: len(plan.statistics)]]
            sums = [a + b for a, b in zip(sums, values, strict=True)] if sums else values
        found = {n: s / STATISTICS_BATCHES for n, s in zip(plan.statistics, sums, strict=True)}
    return found


def _judged(
    named: dict[str, Program], directory: Path, weights: Arrays, data: Arrays
) -> dict[str, np.ndarray]:
    """For clean images and for each attack, whether the images are classified correctly."""
    batch = {"x": data["x"], "y": data["y"], "seed": np.array([0, 0], np.int32)}
    images = {"clean": data["x"].astype(np.float32) / 255}
    for name in named:
        if name.startswith("attack_"):
            images[name[len("attack_") :]] = _called(named[name], directory, weights | batch)[0]
    found = {}
    for name, x in images.items():
        found[name] = np.asarray(
            _called(named["verdict"], directory, weights | batch | {"x": x})[0], bool
        )
    return found


_CALLS: dict[str, Any] = {}


def _called(program: Program, directory: Path, arrays: Arrays) -> Any:
    """The results of a program, which is compiled once."""
    import jax

    arguments = [jax.device_put(value) for value in arguments_of(program, arrays)]
    if program.name not in _CALLS:
        _CALLS[program.name] = jax.jit(loaded(program, directory, arguments))
    return _CALLS[program.name](*arguments)


def _wide(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32) if value.dtype == np.float16 else value


def configure() -> None:
    """Settings of JAX that the programs need."""
    import jax

    jax.config.update("jax_enable_x64", True)  # counters are 64 bits wide


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes or runs programs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, metavar="DIR", help="write the programs there")
    parser.add_argument("--run", type=Path, metavar="DIR", help="run the programs written there")
    parser.add_argument("--train", type=Path, metavar="DIR", help="train and judge, likewise")
    parser.add_argument("--seed", type=int, action="append", help="of --train; may be repeated")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each program")
    parser.add_argument("--only", default="", help="a pattern for the names of programs to run")
    parser.add_argument("--small", action="store_true", help="write programs of a tiny network")
    options = parser.parse_args(arguments)
    if sum(one is not None for one in (options.write, options.run, options.train)) != 1:
        parser.error("expected one of --write=DIR, --run=DIR and --train=DIR")
    if options.write is None:
        configure()
    if options.write is not None:
        from benchmarks import lowered_programs

        lowered_programs.write(options.write, small=options.small)
    elif options.run is not None:
        run(options.run, options.repeats, options.only)
    else:
        for seed in options.seed or [0]:
            train(options.train, seed)


if __name__ == "__main__":
    main(sys.argv[1:])
