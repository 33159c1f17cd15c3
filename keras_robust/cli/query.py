"""Queries a model server about images.

    keras-robust query --server=localhost:8500 --model=digits --images=a.png,b.png

prints the class, its probability, the detection score and the verdict for each image; for an
ensemble also each member's class and probability, as in `7 (0.98), 1 (0.55)`. Images are PNG or
JPEG files, or arrays in `.npy` and `.npz` files: floats in [0, 1], `[height, width, channels]` or
`[batch, height, width, channels]`. --class_names=exported/digits, or names, adds their names.

With --tls, the environment variable SERVING_TOKEN is the token for a proxy that requires one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from keras_robust.cli.extras import require_extra
from keras_robust.core.bounded_files import read_json
from keras_robust.core.quiet_tensorflow import quiet_start
from keras_robust.experiments.flags import command_line
from keras_robust.experiments.flags.recipe_flags import NumberParser
from keras_robust.serving.status import ServingError, connection_error

if TYPE_CHECKING:
    from keras_robust.serving.client.query import Rows

_METADATA = "*/assets.extra/keras_robust.json"


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the command."""
    flags.DEFINE_string(
        "server", "localhost:8500", "Address host:port of a model server.", flag_values=values
    )
    flags.DEFINE_string("model", None, "Name of the served model.", flag_values=values)
    flags.DEFINE_list("images", None, "PNG, JPEG, npy and npz files.", flag_values=values)
    flags.DEFINE_string(
        "signature", "detect", "Signature: detect, serving_default or certify.", flag_values=values
    )
    flags.DEFINE(
        NumberParser(),
        "radius",
        None,
        "Radius of --signature=certify, within which the prediction is to be proven, e.g. 8/255.",
        values,
    )
    flags.DEFINE_list(
        "class_names",
        None,
        "Names of the classes in the order of the labels; or the directory of the exported model, "
        "which has them.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "rest",
        False,
        "Use REST instead of gRPC; --server has the REST port then.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "tls", False, "Connect with TLS, to a proxy in front of the server.", flag_values=values
    )
    flags.DEFINE_bool("json", False, "Print JSON.", flag_values=values)
    flags.DEFINE_float(
        "timeout", 10.0, "Seconds until a request fails.", lower_bound=0.001, flag_values=values
    )


def run(values: flags.FlagValues) -> str:
    """Queries the server that the flags name.

    Returns:
        A table of the answers, or JSON.

    Raises:
        ValueError, OSError, ImportError: a user error, or one that the server reports.
    """
    from keras_robust.serving.client.query import table, with_class_names

    command_line.required(values, "model", "digits")
    command_line.required(values, "images", "a.png,b.png")
    paths = [path for path in values.images if path]
    if not paths:
        raise ValueError("--images is empty; expected files, as in --images=a.png,b.png.")
    names = _class_names(values.class_names)
    if not values.rest:
        require_extra("serving", "A query over gRPC")
    try:
        rows = _query(values, paths)
    except ServingError as error:
        raise connection_error(error) from error
    rows = with_class_names(rows, names) if names else rows
    return json.dumps(rows, indent=2) if values.json else table(rows)


def _class_names(given: list[str] | None) -> list[str] | None:
    """The names as given, or those of the newest version in a directory of exported models."""
    if not given or len(given) > 1 or not Path(given[0]).is_dir():
        return given
    versions = [file for file in Path(given[0]).glob(_METADATA) if file.parts[-3].isdecimal()]
    newest = max(versions, key=lambda file: int(file.parts[-3]), default=None)
    names = newest and read_json(newest).get("class_names")
    if not names:
        raise ValueError(
            f"{given[0]} has no version with class names; expected what `keras-robust export` "
            "wrote, or the names, as in --class_names=cat,dog."
        )
    return list(map(str, names))


def _query(values: flags.FlagValues, paths: list[str]) -> Rows:
    """The answers; over REST without an import of TensorFlow."""
    from keras_robust.serving.client.query import query

    # Not a flag: all users of a machine can read the arguments of a process.
    token = os.environ.get("SERVING_TOKEN") if values.tls else None
    if values.rest:
        from keras_robust.serving.client.rest_client import RestClient

        rest = RestClient(values.server, values.timeout, values.tls, token)
        return query(rest, values.model, paths, values.signature, values.radius)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its log repeats the error message
    with quiet_start():
        import tensorflow_serving.apis.predict_pb2  # noqa: F401  imports TensorFlow

        from keras_robust.serving.client.grpc_client import Client
    with Client(values.server, values.timeout, values.tls, token) as client:
        return query(client, values.model, paths, values.signature, values.radius)
