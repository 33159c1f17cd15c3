"""Results in consoles and notebooks: short texts, and small HTML tables."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_LISTED = 6  # items of a sequence that a text lists; of a longer one it gives the number
_LETTERS = 80  # of a string


def short_repr(part: Any) -> str:
    """A dataclass as one line: fields that have their defaults are omitted, long ones shortened.

    Example:
        >>> from keras_robust.evaluation import Curve
        >>> Curve("PGD", range(1, 101), [0.5] * 100)
        Curve(name='PGD', radii=<100 values>, accuracies=<100 values>)
    """
    shown = (
        f"{field.name}={_short(getattr(part, field.name))}"
        for field in dataclasses.fields(part)
        if field.repr and not _is_default(field, getattr(part, field.name))
    )
    return f"{type(part).__name__}({', '.join(shown)})"


def pairs_html(part: Any) -> str:
    """A dataclass as an HTML table of its fields, shortened as by `short_repr`.

    Example:
        >>> from keras_robust.evaluation import Part
        >>> "<td>APGD</td>" in Part("APGD", 0.5, 10, 1.0)._repr_html_()
        True
    """
    rows = [
        (field.name.replace("_", " "), _cell(getattr(part, field.name)))
        for field in dataclasses.fields(part)
        if field.repr and not _is_default(field, getattr(part, field.name))
    ]
    return html_table((type(part).__name__, ""), rows)


def html_table(columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table as HTML, whose texts are escaped; an empty line in a cell begins a smaller note.

    Example:
        >>> print(html_table(("a", "b"), [("<x>", "1")]).splitlines()[3])
        <tr><td>&lt;x&gt;</td><td>1</td></tr>
    """

    def row(cells: Iterable[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{_marked(cell)}</{tag}>' for cell in cells)}</tr>"

    title = f"<caption>{html.escape(caption)}</caption>\n" if caption else ""
    body = "\n".join(row(cells, "td") for cells in rows)
    head = f"<thead>{row(columns, 'th')}</thead>"
    return f"<table>\n{title}{head}\n<tbody>\n{body}\n</tbody>\n</table>"


def _marked(cell: str) -> str:
    text, _, note = cell.partition("\n\n")
    small = f"<br><small>{html.escape(note)}</small>" if note else ""
    return html.escape(text) + small


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    if field.default_factory is not dataclasses.MISSING:
        return not value
    return type(value) is type(field.default) and value == field.default


def _short(value: Any) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= _LETTERS else f"{value[:_LETTERS]}...")
    if isinstance(value, Mapping):
        return repr(dict(value)) if len(value) <= _LISTED else f"<{len(value)} entries>"
    if isinstance(value, tuple) and len(value) > _LISTED:
        return f"<{len(value):,} values>"
    if hasattr(value, "shape"):
        return f"<array of shape {tuple(value.shape)}>"
    return repr(value)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else _short(value)
