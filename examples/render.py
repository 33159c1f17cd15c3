"""Runs the examples and writes them, with what each cell shows, as pages of the documentation.

    python -m examples.render                  # all
    python -m examples.render udr_in_the_plane

A cell shows what it prints, and the value of its last line: a table of a report, a figure, a text.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

EXAMPLES = Path(__file__).parent
PAGES = EXAMPLES.parent / "docs" / "examples"
# In the order of the documentation.
NAMES = (
    "attack_keras_model",
    "harden_and_certify",
    "cce_served",
    "ta_moo_ensemble",
    "udr_in_the_plane",
    "finetune_96",
)
_VECTOR = 60_000  # bytes of the largest figure that is kept as SVG


class Cell(NamedTuple):
    """A cell of a script: Markdown, or Python."""

    is_code: bool
    source: str


def read(name: str) -> tuple[str, list[Cell]]:
    """The docstring of a script, and its cells."""
    text = (EXAMPLES / f"{name}.py").read_text("utf-8")
    head, *parts = re.split(r"^# %%(.*)\n", text, flags=re.MULTILINE)
    cells = []
    for kind, body in zip(parts[::2], parts[1::2], strict=True):
        is_code = "[markdown]" not in kind
        source = body if is_code else re.sub(r"^# ?", "", body, flags=re.MULTILINE)
        cells.append(Cell(is_code, source.strip("\n")))
    return ast.get_docstring(ast.parse(head)) or name, cells


def execute(cell: str, module: types.ModuleType) -> tuple[str, Any]:
    """Runs a cell: what it prints, and the value of its last line, if that is an expression."""
    tree = ast.parse(cell)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    value = None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, module.__name__, "exec"), module.__dict__)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), module.__name__, "eval"), vars(module))
    return printed.getvalue(), value


def shown(value: Any, stem: Path) -> str:
    """A value as Markdown; a figure is written beside the page.

    Args:
        value: what a cell ends in; None shows nothing.
        stem: the path of a picture, without its suffix.
    """
    if value is None:
        return ""
    if hasattr(value, "savefig"):
        return _picture(value, stem)
    html = getattr(value, "_repr_html_", None)
    return html() if html else f"```text\n{value!r}\n```"


def _picture(figure: Any, stem: Path) -> str:
    import keras_robust as kr

    data, suffix = kr.plots.to_svg(figure), "svg"
    if len(data) > _VECTOR:
        data, suffix = kr.plots.to_png(figure), "png"
    stem.parent.mkdir(parents=True, exist_ok=True)
    path = stem.with_name(f"{stem.name}.{suffix}")
    path.write_bytes(data)
    titles = [axes.get_title() or axes.get_ylabel() for axes in figure.axes]
    about = "; ".join(dict.fromkeys(filter(None, titles))) or "figure"
    return f"![{about}]({stem.parent.name}/{path.name})"


def render(name: str, pages: Path = PAGES, edited: Callable[[str], str] = str) -> Path:
    """Runs an example and writes its page, which is returned.

    Args:
        name: one of `NAMES`.
        pages: the directory of the page.
        edited: changes the code of a cell before it runs, such as for fewer epochs.
    """
    doc, cells = read(name)
    title, _, rest = doc.partition("\n")
    blocks = [f"# {title.rstrip('.')}", rest.strip(), f"Script: `examples/{name}.py`."]
    module = types.ModuleType(name)
    sys.modules[name] = module  # dataclasses and Keras look their module up
    for number, cell in enumerate(cells, start=1):
        if not cell.is_code:
            blocks.append(cell.source)
            continue
        blocks.append(f"```python\n{cell.source}\n```")
        text, value = execute(edited(cell.source), module)
        if text.strip():
            blocks.append(f"```text\n{text.rstrip()}\n```")
        blocks.append(shown(value, pages / name / f"cell_{number}"))
    path = pages / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join(filter(None, blocks)) + "\n"
    path.write_text(text, "utf-8")
    for picture in (pages / name).glob("*"):
        if f"]({name}/{picture.name})" not in text:  # of an earlier version
            picture.unlink()
    return path


def main(names: list[str]) -> None:
    """Renders some examples, or all."""
    for name in names or NAMES:
        print(f"Written: {render(name)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
