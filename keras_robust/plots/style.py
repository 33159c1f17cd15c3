"""Shared parts of the plots: the style, the palette, and figures as SVG or PNG bytes."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

# Okabe and Ito's palette, distinguishable with any common color blindness, without its yellow, too
# pale for lines on white. Markers and dashes repeat the distinction for gray print.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")
CLEAN, ATTACKED, ADAPTIVE, INK, FAINT = COLORS[0], COLORS[1], COLORS[3], "#222222", "#767676"

# What becomes of a color on dark paper: the page of a report has the same paper, ink and lines.
_DARK = {
    "#ffffff": "#16181c",
    INK: "#e7e9ee",
    FAINT: "#a4abb8",
    "#e4e4e4": "#383d47",  # of the grid
    "#0072b2": "#4aa3e0",
    "#d55e00": "#ff8b3d",
    "#009e73": "#2cc596",
    "#cc79a7": "#e79cc4",
    "#e69f00": "#f5b83d",
    "#56b4e9": "#9ad8fa",
    "#000000": "#ffffff",
}
ON_COLOR = "#fefefe"  # white letters on a dark area, which stay white on dark paper

_ROUNDING = 1e-2  # of bfloat16, as a fraction of the range of a pixel

WIDE, NARROW = 8.33, 3.9  # inches of 96 pixels: a column of text, and a phone

_STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same on every machine
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.labelsize": 10.0,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "axes.unicode_minus": True,
    "figure.facecolor": "white",
    "grid.color": "#e4e4e4",
    "grid.linestyle": "-",
    "grid.linewidth": 0.8,
    "legend.fontsize": 9.0,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.0,
    "text.color": INK,
    "text.usetex": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "keras_robust",  # the same data gives the same bytes
}


def styled(plot: Callable[P, R]) -> Callable[P, R]:
    """Runs a plot function in this package's style, without changing the caller's settings.

    Args:
        plot: a function that draws with matplotlib.

    Returns:
        The function; it raises ImportError with the install command if matplotlib is missing.
    """

    @functools.wraps(plot)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            import matplotlib.style
        except ImportError as error:
            raise ImportError(
                "Plots need matplotlib, which is not installed; run: "
                "pip install keras_robust[report]"
            ) from error
        with matplotlib.style.context(["default", _STYLE]):
            return plot(*args, **kwargs)

    return wrapped


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches, with automatic layout, outside pyplot's registry."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def unit_images(images: ArrayLike, bounds: tuple[float, float]) -> np.ndarray:
    """Images whose pixels lie in `bounds`, scaled to [0, 1].

    Raises:
        ValueError: pixels outside the bounds, by more than rounding in half precision, or NaN.

    Example:
        >>> unit_images([[0, 51, 255]], (0, 255)).tolist()
        [[0.0, 0.2, 1.0]]
    """
    pixels = np.asarray(images, np.float64)
    low, high = bounds
    scaled = (pixels - low) / (high - low)
    if not ((scaled >= -_ROUNDING) & (scaled <= 1 + _ROUNDING)).all():
        raise ValueError(
            f"Images have values from {pixels.min():g} to {pixels.max():g}; expected "
            f"[{low:g}, {high:g}]. Pass the range of their pixels, such as `bounds=(0, 255)`."
        )
    return np.clip(scaled, 0.0, 1.0)


def draw_image(axes: Axes, image: np.ndarray) -> None:
    """Draws an image `[height, width, 1 or 3]` with square pixels; 0 is black, 1 is white."""
    gray = image.shape[-1] == 1
    pixels = image[..., 0] if gray else image
    axes.imshow(pixels, cmap="gray", vmin=0.0, vmax=1.0, interpolation="none")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(visible=True, color="#bbbbbb", linewidth=0.6)  # an edge for white on white


@styled
def to_svg(figure: Figure, *, dark: bool = False) -> bytes:
    """A figure as SVG; letters are outlines, so no font is needed to display it.

    Args:
        figure: a matplotlib figure.
        dark: adds colors for readers who prefer dark pages, for figures in the colors of this
            package's style.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    drawn = buffer.getvalue()
    if not dark:
        return drawn
    rules = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{color}!important}}'
        for light, color in _DARK.items()
        for kind in ("fill", "stroke")
    )
    style = f"<style>@media(prefers-color-scheme:dark){{{rules}}}</style>"
    head, tag, rest = drawn.partition(b"<defs>")
    return head + style.encode() + tag + rest


@styled
def to_png(figure: Figure, dpi: float = 192) -> bytes:
    """A figure as PNG, by default with two pixels per pixel of the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def shorten(name: str, letters: int) -> str:
    """A name of at most `letters` letters, with the middle left out.

    Example:
        >>> shorten("automobile", 7)
        'aut…ile'
    """
    if len(name) <= letters:
        return name
    tail = (letters - 1) // 2
    return f"{name[: letters - 1 - tail]}…{name[-tail:]}"


def wrap(name: str, letters: int) -> str:
    r"""A name on lines of about `letters` letters, broken after spaces, `_`, `-`, `/` and `,`.

    A part without any of them is broken wherever the line ends.

    Example:
        >>> wrap("mnist_cce_robustness_2", 12).split("\n")
        ['mnist_cce_', 'robustness_2']
    """
    lines = [""]
    for part in re.findall(rf"[^ _\-/,]{{0,{letters - 1}}}[ _\-/,]*|.", name):
        if lines[-1] and len(lines[-1] + part.rstrip()) > letters:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def legend_label(*names: str) -> str:
    """A label of whole names on short lines; matplotlib would drop a leading underscore."""
    label = wrap(", ".join(shorten(name, 120) for name in names), 28)
    return f" {label}" if label.startswith("_") else label


def legend_height(labels: Iterable[str], more: int = 0) -> float:
    """The height of a legend in inches: of labels of one line or several, and `more` lines."""
    return 0.18 * (sum(1 + label.count("\n") for label in labels) + more)


def draw_band(axes: Axes, x: Any, low: Any, high: Any, color: Any) -> None:
    """Draws the area between two curves, such as an interval around a line of the same color."""
    axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def curve_style(number: int, dashes: int | None = None) -> dict[str, Any]:
    """Color and dashes of a curve by its number: the next one differs in both, 28 in one of them.

    Args:
        number: the number of the curve, or of what its color stands for.
        dashes: the number of what its dashes stand for, such as the attack where the color is the
            model; None for the number of the curve.

    Example:
        >>> curve_style(1), curve_style(1, dashes=2)["linestyle"]
        ({'color': '#d55e00', 'linestyle': '--'}, ':')
    """
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": DASHES[(number if dashes is None else dashes) % len(DASHES)],
    }


def percent_ticks(axis: Axis) -> None:
    """Labels the ticks of an axis of fractions in percent: 0.125 as 12.5%."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")


def disable_math_text(figure: Figure) -> None:
    """Draws dollar signs in names as such, not as the start of mathematics."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
