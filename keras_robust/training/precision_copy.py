"""A copy of a classifier's layers that computes in another precision."""

from __future__ import annotations

from collections.abc import Collection

import keras


def copy_in(
    classifier: keras.Model, policy: str, instead_of: Collection[str], why: str, otherwise: str
) -> keras.Model:
    """Copies the layers of a classifier; the variables of the copy are in the same order.

    Args:
        classifier: a built functional model.
        policy: the dtype policy of the copied layers.
        instead_of: the compute dtypes that it replaces; other layers keep theirs.
        why, otherwise: what needs the copy, and what to do without, for the message.

    Raises:
        ValueError: a layer that cannot be built from its config, such as a `Lambda`.

    Example:
        >>> import keras_robust as kr
        >>> copy = copy_in(kr.models.mlp((2, 2, 1), 3), "mixed_bfloat16", ["float32"], "", "")
        >>> copy.get_layer("fc1").compute_dtype
        'bfloat16'
    """

    def recast(layer: keras.Operation) -> keras.Operation:
        try:
            config = layer.get_config()
            # Operations of `keras.ops` have no dtype.
            if getattr(layer, "compute_dtype", None) in instead_of:
                config["dtype"] = policy
            return type(layer).from_config(config)
        except Exception as error:  # whatever a layer's own code raises
            raise ValueError(
                f"{why} needs a copy of every layer, and the layer "
                f"{layer.name!r} ({type(layer).__name__}) cannot be built from its `get_config`; "
                f"expected layers that can. {otherwise}, or replace the layer by one with "
                "`get_config`."
            ) from error

    return keras.models.clone_model(classifier, clone_function=recast, recursive=True)
