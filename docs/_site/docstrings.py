"""Griffe extension: this project's docstrings and decorators in the words that griffe knows."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^Example:$", flags=re.MULTILINE)
_NOTE = re.compile(r"^(Reference|Differs):(?=\s)", flags=re.MULTILINE)


class Docstrings(griffe.Extension):
    """Renames sections of docstrings, and shows the fields of `@serializable` classes."""

    def on_class_instance(self, *, cls: griffe.Class, **_: Any) -> None:
        """Marks what `keras_robust.core.config.serializable` makes a dataclass as one."""
        if any(str(one.value).partition("(")[0] == "serializable" for one in cls.decorators):
            made = griffe.ExprName("dataclasses.dataclass")
            cls.decorators.append(griffe.Decorator(made, lineno=None, endlineno=None))

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites the docstring of an object, once it was read."""
        if obj.docstring:
            text = _EXAMPLE.sub("Examples:", obj.docstring.value)
            obj.docstring.value = _NOTE.sub(r"**\1:**", text)
