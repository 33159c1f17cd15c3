"""Attacks and training steps as StableHLO, run by JAX on any device, without TensorFlow.

    python -m benchmarks.lowered --write=DIR                # with this library, on any machine
    python benchmarks/lowered.py --run=DIR --repeats=5      # with NumPy and JAX alone

`--write` writes programs of `lowered_programs`: what XLA makes of an attack or a step of training,
with weights and images as arrays beside. `--run` needs this one file and the directory: it compiles
the programs, compares their results with those that TensorFlow found, and prints images per second.
`benchmarks/lowered_torch.py` times the same network and attacks in PyTorch, `lowered_loop.py` runs
a whole training.

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
        value = np.asarray(wide(arrays[name]))
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


def wide(value: np.ndarray) -> np.ndarray:
    """The value in float32, if it was stored in half precision."""
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
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each program")
    parser.add_argument("--only", default="", help="a pattern for the names of programs to run")
    parser.add_argument("--small", action="store_true", help="write programs of a tiny network")
    options = parser.parse_args(arguments)
    if (options.write is None) == (options.run is None):
        parser.error("expected one of --write=DIR and --run=DIR")
    if options.run is not None:
        configure()
        run(options.run, options.repeats, options.only)
    else:
        from benchmarks import lowered_programs

        lowered_programs.write(options.write, small=options.small)


if __name__ == "__main__":
    main(sys.argv[1:])
