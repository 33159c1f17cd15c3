"""Queries a model server about image files and arrays, and formats the answers."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_robust.core.bounded_files import open_arrays
from keras_robust.serving.client.rest_client import RestClient

if TYPE_CHECKING:
    from keras_robust.serving.client.grpc_client import Client

# Signature for arrays -> the same for files.
FILE_SIGNATURES = {"detect": "detect_bytes", "serving_default": "serving_bytes"}
ARRAY_SIGNATURES = {files: arrays for arrays, files in FILE_SIGNATURES.items()}
BATCH_SIZE = 64
Rows = list[dict[str, Any]]


def query(
    client: Client | RestClient,
    model: str,
    paths: Sequence[str],
    signature: str = "detect",
    radius: float | None = None,
) -> Rows:
    """Queries a server about image files and arrays.

    Args:
        client: a client of the server.
        model: name of the served model.
        paths: PNG, JPEG, `.npy` and `.npz` files.
        signature: `detect` or `serving_default`, of which files use the one that takes bytes; or
            `certify`, for arrays.
        radius: of `certify`, in the units of images in [0, 1].

    Returns:
        For each image, in order, `{"image", "class", "probability", "probabilities"}`; with
        `detect` also `"detection_score"` and `"is_adversarial"`; with `certify` `"certified"`; for
        an ensemble also `"member_probabilities"`, a list per member.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file without such an array, a model with other outputs, or a radius that the
            signature does not take.
        ServingError: the server rejects the request or cannot be reached.
    """
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{missing[0]} is not a file; expected images, separated by commas."
        )
    _check_radius(paths, signature, radius)
    for_arrays = ARRAY_SIGNATURES.get(signature, signature)
    for_files = FILE_SIGNATURES.get(signature, signature)
    contents = [Path(path).read_bytes() for path in paths if not _is_array(path)]
    file_rows = _predict(client, model, contents, for_files)
    rows: Rows = []
    for path in paths:
        if not _is_array(path):
            rows.append({"image": path, **next(file_rows)})
            continue
        images = as_batch(load_array(path), _image_shape(client, model, for_arrays), path)
        answers = list(_predict(client, model, images, for_arrays, radius))
        names = [path] if len(answers) == 1 else [f"{path}[{i}]" for i in range(len(answers))]
        rows += [{"image": name, **row} for name, row in zip(names, answers, strict=True)]
    return rows


def _check_radius(paths: Sequence[str], signature: str, radius: float | None) -> None:
    """Raises ValueError unless the signature takes the radius and the files."""
    if (signature == "certify") != (radius is not None):
        received = "no radius was given" if radius is None else f"a radius of {radius:g} was given"
        raise ValueError(
            f"The signature is {signature!r} and {received}; expected a radius with 'certify', and "
            "with no other."
        )
    files = [path for path in paths if not _is_array(path)]
    if signature == "certify" and files:
        raise ValueError(
            f"The signature 'certify' takes arrays; {files[0]} is another file. Expected .npy and "
            ".npz files."
        )


def load_array(path: str) -> np.ndarray:
    """Reads the array of a `.npy` file, or of a `.npz` file `images`, `x` or its only array.

    Raises:
        ValueError: no array, or several with other names.
    """
    try:
        found = open_arrays(path)
        if isinstance(found, np.ndarray):
            return found
        with found:
            names = [name for name in ("images", "x") if name in found.files] or found.files
            if len(names) == 1 or {"images", "x"} & set(names):
                return found[names[0]]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a NumPy file of numbers: {error}") from error
    raise ValueError(f"{path} holds the arrays {names}; expected one, or one named 'images'.")


def as_batch(array: np.ndarray, shape: Sequence[int], path: str) -> np.ndarray:
    """Reshapes an array to a batch of images.

    Args:
        array: one image or several, gray ones with or without the channel axis.
        shape: height, width and channels of the model's input.
        path: the file, for messages.

    Returns:
        `[batch, height, width, channels]` float32.

    Raises:
        ValueError: another shape, an empty batch, or integers.

    Example:
        >>> as_batch(np.zeros((8, 8)), [8, 8, 1], "a.npy").shape
        (1, 8, 8, 1)
    """
    if array.dtype.kind != "f":
        raise ValueError(
            f"{path} holds {array.dtype}; expected floats in [0, 1]: divide 8-bit images by 255."
        )
    if not len(np.atleast_1d(array)):
        raise ValueError(f"{path} holds an empty batch; expected at least one image.")
    shape = tuple(shape)
    shapes = [shape, shape[:-1]] if shape[-1:] == (1,) else [shape]
    for accepted in shapes:
        if array.shape == accepted or array.shape[1:] == accepted:
            return array.reshape(-1, *shape).astype(np.float32)
    raise ValueError(
        f"{path} has shape {list(array.shape)}; expected {list(shape)}, or [batch, ...] of that."
    )


def with_class_names(rows: Rows, names: Sequence[str]) -> Rows:
    """Adds the name of the class to each answer, after the class.

    Raises:
        ValueError: another number of names than of classes.

    Example:
        >>> row = {"image": "a.png", "class": 1, "probabilities": [0.2, 0.8]}
        >>> with_class_names([row], ["cat", "dog"])[0]["class_name"]
        'dog'
    """
    found: Rows = []
    for row in rows:
        if len(row["probabilities"]) != len(names):
            raise ValueError(
                f"There are {len(names)} class names; expected {len(row['probabilities'])}, the "
                "number of classes of the model."
            )
        head = {name: row[name] for name in ("image", "class")}
        found.append({**head, "class_name": names[row["class"]], **row})
    return found


def table(rows: Rows) -> str:
    """Formats the answers as aligned columns."""
    columns: dict[str, Callable[[Any], str]] = {
        "image": str,
        "class": str,
        "class_name": str,
        "probability": "{:.4f}".format,
    }
    if not all("class_name" in row for row in rows):
        del columns["class_name"]
    if all("detection_score" in row for row in rows):
        columns["detection_score"] = "{:.4f}".format
    if all("is_adversarial" in row for row in rows):
        columns["is_adversarial"] = _yes_no
    if all("certified" in row for row in rows):
        columns["certified"] = _yes_no
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


def _predict(
    client: Client | RestClient,
    model: str,
    inputs: np.ndarray | list[bytes],
    signature: str,
    radius: float | None = None,
) -> Iterator[dict[str, Any]]:
    """Yields one row per image or file, in batches of `BATCH_SIZE`."""
    for start in range(0, len(inputs), BATCH_SIZE):
        batch: Any = inputs[start : start + BATCH_SIZE]
        if radius is not None:
            batch = {"images": batch, "radius": np.full(len(batch), radius, np.float32)}
        outputs = client.predict(model, batch, signature)
        missing = {"probabilities", "classes"} - outputs.keys()
        if missing:
            raise ValueError(
                f"The signature {signature!r} of {model} returns {sorted(outputs)}; expected "
                "'probabilities' and 'classes', as in models that `keras-robust export` wrote."
            )
        for index, label in enumerate(outputs["classes"].tolist()):
            probabilities = outputs["probabilities"][index].tolist()
            row = {"class": label, "probability": probabilities[label]}
            row["probabilities"] = probabilities
            for name in ("detection_score", "is_adversarial", "certified"):
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
    predicted = zip(best, probabilities, strict=True)
    return ", ".join(f"{label} ({member[label]:.2f})" for label, member in predicted)
