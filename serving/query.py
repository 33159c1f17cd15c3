"""Asks a model server about images.

    python -m serving.query --server=localhost:8500 --model=digits --images=a.png,b.png

prints the class, its probability, the detection score and the verdict for each; of an ensemble also
what each member says, as in `7 (0.98), 1 (0.55)`. Images are PNG or JPEG files, or arrays in `.npy`
and `.npz` files: floats in [0, 1], `[height, width, channels]` or
`[batch, height, width, channels]`.

With `--tls`, the environment variable SERVING_TOKEN is the token for a proxy that asks for one.
"""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from keras_robust.core.quiet_tensorflow import quiet_start
from keras_robust.serving.client.grpc_client import Client
from keras_robust.serving.client.rest_client import RestClient
from keras_robust.serving.status import ServingError

# The signature that takes files, for each that takes arrays.
OF_FILES = {"detect": "detect_bytes", "serving_default": "serving_bytes"}
OF_ARRAYS = {of_files: of_arrays for of_arrays, of_files in OF_FILES.items()}
BATCH = 64
Rows = list[dict[str, Any]]


def query(
    client: Client | RestClient, model: str, paths: Sequence[str], signature: str = "detect"
) -> Rows:
    """Asks a server about image files and arrays.

    Args:
        client: of the server.
        model: the name it is served by.
        paths: PNG, JPEG, `.npy` and `.npz` files.
        signature: `detect` or `serving_default`; files go to the one that takes bytes.

    Returns:
        For each image, in order, `{"image", "class", "probability", "probabilities"}` and, of
        `detect`, `"detection_score"` and `"is_adversarial"`; of an ensemble,
        `"member_probabilities"`, a list for each member.

    Raises:
        FileNotFoundError: when a file is missing.
        ValueError: when a file holds no such array, or the model gives other outputs.
        ServingError: when the server refuses, or cannot be reached.
    """
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{missing[0]} is not a file; expected images, separated by commas."
        )
    of_arrays, of_files = OF_ARRAYS.get(signature, signature), OF_FILES.get(signature, signature)
    contents = [Path(path).read_bytes() for path in paths if not _is_array(path)]
    of_contents = _ask(client, model, contents, of_files)
    rows: Rows = []
    for path in paths:
        if not _is_array(path):
            rows.append({"image": path, **next(of_contents)})
            continue
        images = as_batch(load_array(path), _image_shape(client, model, of_arrays), path)
        answers = list(_ask(client, model, images, of_arrays))
        names = [path] if len(answers) == 1 else [f"{path}[{i}]" for i in range(len(answers))]
        rows += [{"image": name, **row} for name, row in zip(names, answers, strict=True)]
    return rows


def load_array(path: str) -> np.ndarray:
    """The array in a `.npy` file, or the only one (or `images`, or `x`) in a `.npz` file.

    Raises:
        ValueError: when it holds none, or several and none of these names.
    """
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            names = [name for name in ("images", "x") if name in found.files] or found.files
            if len(names) == 1 or {"images", "x"} & set(names):
                return found[names[0]]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no NumPy file of numbers: {error}") from error
    raise ValueError(f"{path} holds the arrays {names}; expected one, or one named 'images'.")


def as_batch(array: np.ndarray, shape: Sequence[int], path: str) -> np.ndarray:
    """An array as a batch of images.

    Args:
        array: one image or several, grey ones with or without the channel axis.
        shape: height, width and channels that the model takes.
        path: for errors.

    Returns:
        `[batch, height, width, channels]` float32.

    Raises:
        ValueError: when the shape is another, or the values are integers.

    Example:
        >>> as_batch(np.zeros((8, 8)), [8, 8, 1], "a.npy").shape
        (1, 8, 8, 1)
    """
    if array.dtype.kind != "f":
        raise ValueError(
            f"{path} holds {array.dtype}; expected floats in [0, 1]: divide 8-bit images by 255."
        )
    if not len(np.atleast_1d(array)):
        raise ValueError(f"{path} holds no image; expected at least one.")
    shape = tuple(shape)
    shapes = [shape, shape[:-1]] if shape[-1:] == (1,) else [shape]
    for accepted in shapes:
        if array.shape == accepted or array.shape[1:] == accepted:
            return array.reshape(-1, *shape).astype(np.float32)
    raise ValueError(
        f"{path} has shape {list(array.shape)}; expected {list(shape)}, or [batch, ...] of that."
    )


def table(rows: Rows) -> str:
    """The answers as aligned columns."""
    columns: dict[str, Callable[[Any], str]] = {
        "image": str,
        "class": str,
        "probability": "{:.4f}".format,
    }
    if all("detection_score" in row for row in rows):
        columns |= {"detection_score": "{:.4f}".format, "is_adversarial": _yes_no}
    if all("member_probabilities" in row for row in rows):
        columns["member_probabilities"] = _members
    cells = [list(columns)]
    cells += [[show(row[name]) for name, show in columns.items()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for first, *others in cells:
        numbers = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *numbers]))
    return "\n".join(lines)


def _ask(
    client: Client | RestClient, model: str, inputs: Any, signature: str
) -> Iterator[dict[str, Any]]:
    for start in range(0, len(inputs), BATCH):
        outputs = client.predict(model, inputs[start : start + BATCH], signature)
        missing = {"probabilities", "classes"} - outputs.keys()
        if missing:
            raise ValueError(
                f"The signature {signature!r} of {model} gives {sorted(outputs)}; expected "
                "'probabilities' and 'classes', as models exported by serving.export give them."
            )
        for index, label in enumerate(outputs["classes"].tolist()):
            probabilities = outputs["probabilities"][index].tolist()
            row = {"class": label, "probability": probabilities[label]}
            row["probabilities"] = probabilities
            for name in ("detection_score", "is_adversarial"):
                if name in outputs:
                    row[name] = outputs[name][index].item()
            if "member_probabilities" in outputs:
                row["member_probabilities"] = outputs["member_probabilities"][index].tolist()
            yield row


def _image_shape(client: Client | RestClient, model: str, signature: str) -> list[int]:
    signatures = client.metadata(model)
    if "images" not in signatures.get(signature, {}).get("inputs", {}):
        raise ValueError(
            f"The model {model} has no signature {signature!r} that takes 'images'; it has "
            f"{', '.join(sorted(signatures))}."
        )
    return signatures[signature]["inputs"]["images"]["shape"][1:]


def _is_array(path: str) -> bool:
    return path.lower().endswith((".npy", ".npz"))


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def _members(probabilities: list[list[float]]) -> str:
    """The class that each member predicts, with its probability."""
    best = [max(range(len(member)), key=member.__getitem__) for member in probabilities]
    said = zip(best, probabilities, strict=True)
    return ", ".join(f"{label} ({member[label]:.2f})" for label, member in said)


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""

    def declare(kind: Any, name: str, default: Any, text: str, **options: Any) -> None:
        kind(name, default, text, flag_values=values, **options)

    declare(flags.DEFINE_string, "server", "localhost:8500", "host:port of a model server.")
    declare(flags.DEFINE_string, "model", None, "The name it is served by.", required=True)
    declare(flags.DEFINE_list, "images", None, "PNG, JPEG, npy, npz files.", required=True)
    declare(flags.DEFINE_string, "signature", "detect", "detect, or serving_default.")
    declare(flags.DEFINE_bool, "rest", False, "Ask over REST; --server is that port then.")
    declare(flags.DEFINE_bool, "tls", False, "Speak TLS, to a proxy in front of the server.")
    declare(flags.DEFINE_bool, "json", False, "Print JSON.")
    declare(flags.DEFINE_float, "timeout", 10.0, "Seconds for each request.", lower_bound=0.001)


def run(values: flags.FlagValues = flags.FLAGS) -> str:
    """Does what the flags say; returns what to print."""
    paths = [path for path in values.images if path]
    if not paths:
        raise ValueError("--images is empty; expected files, as in --images=a.png,b.png.")
    # Not a flag: the arguments of a process are there for every user of the machine to read.
    token = os.environ.get("SERVING_TOKEN") if values.tls else None
    if values.rest:
        client: Client | RestClient = RestClient(values.server, values.timeout, values.tls, token)
        rows = query(client, values.model, paths, values.signature)
    else:
        with quiet_start():
            import tensorflow_serving.apis.predict_pb2  # noqa: F401  this imports TensorFlow
        with Client(values.server, values.timeout, values.tls, token) as client:
            rows = query(client, values.model, paths, values.signature)
    return json.dumps(rows, indent=2) if values.json else table(rows)


def main(_: list[str]) -> None:
    """Runs the program; what the user can mend ends it with one sentence."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its log repeats what the error says
    try:
        print(run())
    except ServingError as error:
        sys.exit(f"{error.code.name}: {error}")
    except (OSError, ValueError, ModuleNotFoundError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
