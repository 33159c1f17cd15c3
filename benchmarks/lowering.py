"""Functions of TensorFlow as StableHLO, with the variables that they use as arguments."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from benchmarks.lowered import Arrays, Program
from keras_robust.core.atomic_files import write_json
from keras_robust.experiments.training.averaging import assign, values_of
from keras_robust.training.robust_model import RobustModel

_RESULTS = re.compile(
    r"@main\(.*?\)\s*->\s*(.*?)\s*(?:attributes\s*{[^{}]*}\s*)?{\s*$", re.MULTILINE
)
_TENSOR = re.compile(r"tensor<((?:\d+x)*)(\w+)>")
_COPY = re.compile(r"\s*(%\w+) = mhlo\.copy (%[\w#]+) :")
_DEFINED = re.compile(r"\s*(%\w+)(?::\d+)? = ")
_VALUE = re.compile(r"%\w+(?:#\d+)?")
_DTYPES = {
    "i1": "bool",
    "i32": "int32",
    "i64": "int64",
    "ui32": "uint32",
    "ui64": "uint64",
    "bf16": "bfloat16",
    "f32": "float32",
    "f64": "float64",
}


class Lowered(NamedTuple):
    """A function as StableHLO.

    Attributes:
        module: the module, in text.
        variables: those that it reads or writes, in the order of its last arguments.
        results: shapes and dtypes of its results: those of the function, with `has_state` the
            variables after the call, and what else XLA returns.
        outputs: how many the function returns.
    """

    module: str
    variables: list[keras.Variable]
    results: list[tuple[list[int], str]]
    outputs: int


def lower(
    function: Callable[..., Any],
    arguments: Iterable[tf.Tensor],
    variables: Iterable[keras.Variable],
    has_state: bool = False,
) -> Lowered:
    """Lowers a function of tensors.

    The module takes the tensors, then the variables. It returns the tensors that the function
    returns, and with `has_state` the variables' values after the call.

    Args:
        function: takes the arguments, returns tensors; without asserts and strings, which XLA
            lacks.
        arguments: tensors of the shapes to lower it for.
        variables: those that it may use.
        has_state: whether the variables after a call are those of the next one.

    Raises:
        ValueError: the function uses a variable that is not among them.
    """
    arguments, handles = list(arguments), {id(v.value.handle): v for v in variables}

    def used(*tensors: tf.Tensor) -> list[keras.Variable]:
        graph = tf.function(function, autograph=False).get_concrete_function(*tensors)
        missing = [h for h in graph.captured_inputs if id(h) not in handles]
        if missing:
            raise ValueError(
                f"The function uses {len(missing)} variables or constants that were not given, "
                f"such as {missing[0]}; expected all of them in `variables`."
            )
        return [handles[id(handle)] for handle in graph.captured_inputs]

    state = used(*arguments)
    outputs = 0

    def with_state(*tensors: tf.Tensor) -> list[tf.Tensor]:
        nonlocal outputs
        found = tf.nest.flatten(function(*tensors))
        outputs = len(found)
        after = [v.value for v in state] if has_state else []
        return [*map(tf.identity, found), *map(tf.identity, after)]

    program = tf.function(with_state, jit_compile=True, autograph=False)
    taken = program.get_concrete_function(*arguments).captured_inputs
    if [id(handle) for handle in taken] != [id(v.value.handle) for v in state]:
        raise AssertionError("The order of the variables changed between two traces.")
    generate = program.experimental_get_compiler_ir(*arguments)
    module = without_copies(generate(stage="stablehlo"))
    return Lowered(module, state, results_of(module), outputs)


def without_copies(module: str) -> str:
    r"""A module in text without `mhlo.copy`, which is not StableHLO; JAX refuses it on a GPU.

    Example:
        >>> print(without_copies("%1 = mhlo.copy %0 : tensor<2xf32>\nreturn %1 : tensor<2xf32>"))
        return %0 : tensor<2xf32>
    """
    sources: dict[str, str] = {}
    lines = []
    for line in module.splitlines():
        if "func.func" in line:
            sources = {}
        defined = _DEFINED.match(line)
        if defined:  # regions beside each other use the same numbers
            sources.pop(defined.group(1), None)
        line = _VALUE.sub(partial(_source, sources), line)
        copy = _COPY.match(line)
        if copy:
            sources[copy.group(1)] = copy.group(2)
        else:
            lines.append(line)
    return "\n".join(lines)


def _source(sources: dict[str, str], value: re.Match[str]) -> str:
    return sources.get(value.group(), value.group())


def results_of(text: str) -> list[tuple[list[int], str]]:
    """Shapes and dtypes of the results of a module in text.

    Example:
        >>> results_of("func @main(%a: tensor<2xf32>) -> (tensor<2x3xf32>, tensor<i64>) {")
        [([2, 3], 'float32'), ([], 'int64')]
    """
    found = _RESULTS.search(text)
    if found is None:
        raise ValueError("The module has no function `main`.")
    return [
        ([int(size) for size in sizes.split("x") if size], _DTYPES[kind])
        for sizes, kind in _TENSOR.findall(found.group(1))
    ]


def names_of(variables: Iterable[keras.Variable]) -> list[str]:
    """The paths of variables; one that occurred before gets a number."""
    seen: dict[str, int] = {}
    names = []
    for variable in variables:
        count = seen[variable.path] = seen.get(variable.path, 0) + 1
        names.append(variable.path if count == 1 else f"{variable.path}#{count}")
    return names


def distinct(variables: Iterable[keras.Variable]) -> list[keras.Variable]:
    """The variables, each once."""
    return list({id(variable): variable for variable in variables}.values())


def small(value: np.ndarray) -> np.ndarray:
    """The value in half precision, if that holds it."""
    half = value.astype(np.float16) if value.dtype == np.float32 else value
    return half if np.array_equal(half, value) else value


def numpy_of(variable: keras.Variable) -> np.ndarray:
    """The value of a variable."""
    return np.asarray(tf.convert_to_tensor(variable.value))


class Case(NamedTuple):
    """A function to write as a program.

    Attributes:
        name: of the program.
        file: of its module, without the suffix.
        function: takes the arguments, returns tensors.
        arguments: name -> a tensor of its shape.
        variables: those that the function may use.
        images: the size of its batch.
        has_state: whether the variables after a call are those of the next one.
        is_checked: whether the results of the arguments are written too, as XLA finds them here.
        rounds: whether an accelerator may round products to TF32.
    """

    name: str
    file: str
    function: Callable[..., Any]
    arguments: dict[str, tf.Tensor]
    variables: list[keras.Variable]
    images: int
    has_state: bool = False
    is_checked: bool = False
    rounds: bool = False


def write(directory: Path, cases: Iterable[Case], arrays: Arrays) -> None:
    """Writes programs, and the arrays that they and the caller need.

    Args:
        directory: is made; programs that are in it are replaced.
        cases: the programs.
        arrays: further arrays.
    """
    directory.mkdir(parents=True, exist_ok=True)
    programs = []
    for case in cases:
        tf.config.experimental.enable_tensor_float_32_execution(case.rounds)
        given = case.arguments.values()
        lowered = lower(case.function, given, case.variables, case.has_state)
        names = names_of(lowered.variables)
        values = {n: small(numpy_of(v)) for n, v in zip(names, lowered.variables, strict=True)}
        places = {name: lowered.outputs + place for place, name in enumerate(names)}
        results = _results(case) if case.is_checked else []
        expected = {f"expected/{case.file}/{place}": place for place in range(len(results))}
        module = f"{case.file}.mlir"
        program = Program(
            case.name,
            module,
            [*case.arguments, *names],
            lowered.results,
            case.images,
            expected,
            places if case.has_state else {},
        )
        (directory / module).write_text(lowered.module)
        programs.append(dataclasses.asdict(program))
        arrays = arrays | values | dict(zip(expected, results, strict=True))
        print(f"{case.name}: {len(lowered.module) // 1024} KB", flush=True)
    np.savez_compressed(directory / "arrays.npz", **arrays)
    write_json(directory / "programs.json", programs)


def _results(case: Case) -> list[np.ndarray]:
    """What XLA finds here; the variables stay as they were."""
    with unchanged(case.variables):
        jitted = tf.function(case.function, jit_compile=True, autograph=False)
        return [result.numpy() for result in tf.nest.flatten(jitted(*case.arguments.values()))]


@contextlib.contextmanager
def unchanged(variables: list[keras.Variable]) -> Iterator[None]:
    """Restores variables."""
    before = values_of(variables)
    yield
    assign(variables, before)


def variables_of(model: RobustModel) -> list[keras.Variable]:
    """All variables of a step of training, as before the first one: also those of the metrics."""
    model.optimizer.build(model.trainable_variables)
    shape = model.classifier.input_shape[1:]
    # The counters of the metrics exist after a step.
    with unchanged([*model.variables, *model.optimizer.variables]):
        model.train_on_batch(np.zeros([2, *shape], np.float32), np.array([0, 1]))
    model.reset_metrics()
    metrics = [v for metric in model.metrics for v in metric.variables]
    return distinct([*model.variables, *model.optimizer.variables, *metrics])
