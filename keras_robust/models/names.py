"""Names in error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def listed(name: object, valid: Iterable[str], most: int = 20) -> str:
    """The valid names, and the one among them that `name` was perhaps meant to be.

    Args:
        name: what was received.
        valid: what was expected.
        most: how many of the valid names are listed; of more, the last ones.

    Returns:
        The end of an error message.

    Example:
        >>> listed("resnet_18", ["mlp", "resnet18"])
        "mlp, resnet18. Did you mean 'resnet18'?"
    """
    names = list(dict.fromkeys(valid))
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    rest = f" (the last {most} of {len(names)})" if len(names) > most else ""
    return f"{', '.join(names[-most:])}{rest}.{hint}"
