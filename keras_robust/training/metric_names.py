"""The names under which a robust model logs, and what Keras and the user do with them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import keras


def user_metric_names(metrics: Any) -> list[str]:
    """The names of the metrics that `compile` was given, nested in any way.

    Example:
        >>> user_metric_names(["accuracy", {"logits": keras.metrics.AUC(name="area")}])
        ['accuracy', 'area']
    """
    return [_name(metric) for metric in keras.tree.flatten(metrics) if metric is not None]


def check_user_metrics(metrics: Any, own: Collection[str]) -> None:
    """Raises ValueError if a metric has the name of one that the model logs itself.

    The accuracy of clean logits is the same as the model's own, and is let through.
    """
    for metric in keras.tree.flatten(metrics):
        name = "" if metric is None else _name(metric)
        if name.removeprefix("val_") not in own:
            continue
        is_accuracy = isinstance(metric, (str, keras.metrics.SparseCategoricalAccuracy))
        if name == "accuracy" and is_accuracy:
            continue
        raise ValueError(
            f"compile() received a metric named {name!r}, which a robust model logs itself; "
            f"expected another name than {', '.join(own)}. Give the metric another `name`."
        )


def infer_modes(callbacks: Any, directions: Mapping[str, str]) -> None:
    """Sets `mode` of the callbacks that monitor one of the names with `mode="auto"`.

    Keras infers the direction of its own metrics only.

    Args:
        callbacks: as passed to `fit`.
        directions: `"min"` or `"max"` by the name that is logged, without `val_`.
    """
    for callback in _each(callbacks):
        monitor = getattr(callback, "monitor", None)
        if getattr(callback, "mode", None) == "auto" and isinstance(monitor, str):
            callback.mode = directions.get(monitor.removeprefix("val_"), "auto")


def _each(callbacks: Any) -> Iterator[Any]:
    inner = getattr(callbacks, "callbacks", callbacks)
    if isinstance(inner, (list, tuple)):
        for callback in inner:
            yield from _each(callback)
    elif inner is not None:
        yield inner


def _name(metric: Any) -> str:
    if isinstance(metric, str):
        return metric
    return str(getattr(metric, "name", None) or getattr(metric, "__name__", ""))
