"""Imports of optional packages."""

from __future__ import annotations

import importlib
from typing import Any


def import_extra(module: str, extra: str, purpose: str) -> Any:
    """Imports a module of an extra of this distribution.

    Args:
        module: its full name.
        extra: the extra that installs it.
        purpose: what needs it, for the message.

    Raises:
        ImportError: with the command that installs it.

    Example:
        >>> import_extra("json", "onnx", "This conversion").__name__
        'json'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs {module}, which cannot be imported ({error}); run "
            f"`pip install 'keras_robust[{extra}]'`."
        ) from error
