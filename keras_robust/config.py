"""What every configurable part is made with: a frozen dataclass that Keras can save and load."""

from __future__ import annotations

import dataclasses
import numbers
from typing import TYPE_CHECKING, Any, TypeVar

import keras
import numpy as np

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:  # Python 3.10 has none, and only a type checker reads it

    def dataclass_transform(**_: Any) -> Any:
        """Does nothing."""
        return lambda decorator: decorator


T = TypeVar("T")
PACKAGE = "keras_robust"


def _encode(value: Any) -> Any:
    if isinstance(value, keras.Model):
        raise ValueError(
            f"The model {value.name!r} is no part of a configuration, which would lose its "
            "weights. Keep what is around it, and build it again with the model."
        )
    if hasattr(value, "get_config") or callable(value):
        return keras.saving.serialize_keras_object(value)
    if isinstance(value, (tuple, list)):  # a list comes back as a tuple, with its parts rebuilt
        return {"tuple": [_encode(item) for item in value]}
    if isinstance(value, np.generic):  # JSON knows Python's numbers alone
        return value.item()
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, dict) and "class_name" in value:
        return keras.saving.deserialize_keras_object(value)
    if isinstance(value, dict) and set(value) == {"tuple"}:
        return tuple(_decode(item) for item in value["tuple"])
    return value


@dataclass_transform(frozen_default=True)
def configured(cls: type[T]) -> type[T]:
    """Makes `cls` a frozen dataclass, registers it with Keras, gives it `get_config`/`from_config`.

    Fields may hold numbers, strings, booleans, None, tuples of these, and other configured objects.

    Example:
        >>> from keras_robust import LinfBall
        >>> ball = LinfBall(radius=0.3)
        >>> LinfBall.from_config(ball.get_config()) == ball
        True
    """
    cls = dataclasses.dataclass(frozen=True)(cls)

    def get_config(self: Any) -> dict[str, Any]:
        """The fields, nested parts serialised by Keras."""
        return {f.name: _encode(getattr(self, f.name)) for f in dataclasses.fields(self)}

    def from_config(klass: type[T], config: dict[str, Any]) -> T:
        """Rebuilds the object that `get_config` described."""
        return klass(**{name: _decode(value) for name, value in config.items()})

    cls.get_config = get_config  # type: ignore[attr-defined]
    cls.from_config = classmethod(from_config)  # type: ignore[attr-defined]
    # The module is part of the name: two parts may share a class name, and Keras would silently
    # rebuild one as the other.
    return keras.saving.register_keras_serializable(package=cls.__module__)(cls)


def replace(part: T, **changes: Any) -> T:
    """A copy of a configured part with some fields changed; the fields may become tensors.

    Example:
        >>> from keras_robust import LinfBall
        >>> replace(LinfBall(radius=0.3), radius=0.1).radius
        0.1
    """
    return dataclasses.replace(part, **changes)  # type: ignore[type-var]


def check_whole(what: str, value: Any, least: int | None = 0) -> None:
    """Refuses a setting that is no whole number, of Python or NumPy, or one below a bound.

    Args:
        what: the setting, as the error names it.
        value: what was given.
        least: the bound; None for none.

    Raises:
        ValueError: with the value, and what was expected.

    Example:
        >>> check_whole("Fab: steps", -1)
        Traceback (most recent call last):
        ...
        ValueError: Fab: steps is -1; expected a whole number >= 0.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or (least is not None and value < least):
        bound = "" if least is None else f" >= {least}"
        raise ValueError(f"{what} is {value!r}; expected a whole number{bound}.")
