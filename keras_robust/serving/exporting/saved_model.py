"""A SavedModel in a session, loaded as TensorFlow Serving loads it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from keras_robust.core.quiet_tensorflow import quiet_logger

# The saver writes operations such as `__saved_model_init_op` among the signatures.
_NOT_A_SIGNATURE = "__"


class SavedModelSession:
    """A v1 session of a SavedModel's graph with the tag `serve`, run by its SignatureDefs.

    Args:
        path: a version directory.

    Attributes:
        signatures: `{name: SignatureDef}`.

    Raises:
        ValueError: the directory holds no SavedModel that can be loaded in this way.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        try:
            with self.session.graph.as_default(), quiet_logger():  # this v1 call is deprecated
                meta = tf.compat.v1.saved_model.load(self.session, ["serve"], os.fspath(path))
        except (OSError, RuntimeError, tf.errors.OpError) as error:
            self.session.close()
            raise ValueError(
                f"{path} cannot be loaded as TensorFlow Serving loads it: {error}"
            ) from error
        self.signatures: dict[str, meta_graph_pb2.SignatureDef] = {
            name: definition
            for name, definition in meta.signature_def.items()
            if not name.startswith(_NOT_A_SIGNATURE)
        }

    def function(
        self, inputs: Sequence[str], outputs: Sequence[str]
    ) -> Callable[..., Sequence[np.ndarray]]:
        """A function of arrays that runs part of the graph, optionally with `options=RunOptions`.

        Args:
            inputs: names of the graph's tensors to feed, in the order of the arguments.
            outputs: names of the tensors to return.
        """
        return self.session.make_callable(list(outputs), list(inputs), accept_options=True)

    def predict(
        self, signature: str, inputs: np.ndarray | Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """The outputs of a signature.

        Args:
            signature: its name.
            inputs: named arrays, or an array for a signature that has one input.

        Raises:
            tf.errors.InvalidArgumentError: the graph rejects the inputs.
        """
        definition = self.signatures[signature]
        if not isinstance(inputs, Mapping):
            (name,) = definition.inputs
            inputs = {name: inputs}
        fetches = {name: info.name for name, info in definition.outputs.items()}
        feeds = {definition.inputs[name].name: value for name, value in inputs.items()}
        return self.session.run(fetches, feeds)

    def close(self) -> None:
        """Frees the variables; the session cannot be used afterwards."""
        self.session.close()

    def __enter__(self) -> SavedModelSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
