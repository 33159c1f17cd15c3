"""Griffe extension: sections of this project's docstrings in the words that griffe parses."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^Example:$", flags=re.MULTILINE)
_NOTE = re.compile(r"^(Reference|Differs):(?=\s)", flags=re.MULTILINE)


class Docstrings(griffe.Extension):
    """Renames the sections `Example`, `Reference` and `Differs`, which griffe does not know."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites the docstring of an object, once it was read."""
        if obj.docstring:
            text = _EXAMPLE.sub("Examples:", obj.docstring.value)
            obj.docstring.value = _NOTE.sub(r"**\1:**", text)
