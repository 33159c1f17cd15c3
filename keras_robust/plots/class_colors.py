"""Colors and names of the classes in a plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from keras_robust.plots.style import COLORS, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_NAMES = 24  # more classes are named in part

# The palette, with its yellow, which is visible on areas and on dots with an edge, and three more.
# Black is reserved for marks on top of them.
CLASS_COLORS = (*COLORS[:6], "#f0e442", "#999999", "#332288", "#882255")


def class_name(index: int, class_names: Sequence[str] | None) -> str:
    """The shortened name of a class; by default its number.

    Example:
        >>> class_name(1, ["cat", "dog"]), class_name(1, None)
        ('dog', '1')
    """
    return shorten(str(class_names[index]) if class_names else str(index), 12)


def class_colors(count: int) -> list[str | tuple[float, ...]]:
    """One matplotlib color per class; up to 10 classes, the same in every plot.

    Beyond 10 classes neighbors look alike.

    Example:
        >>> len(set(class_colors(10))), class_colors(2) == class_colors(10)[:2]
        (10, True)
    """
    if count <= len(CLASS_COLORS):
        return list(CLASS_COLORS[:count])
    from matplotlib import colormaps

    return [colormaps["turbo"](index / (count - 1)) for index in range(count)]


class ClassColors:
    """The colors of the classes in a plot, and the color bar that names them.

    Args:
        shown: class numbers of any shape.
        class_names: one name per class; by default the numbers from 0.

    Raises:
        ValueError: a class without a name.
    """

    def __init__(self, shown: ArrayLike, class_names: Sequence[str] | None):
        from matplotlib.colors import BoundaryNorm, ListedColormap

        self.present = np.unique(np.asarray(shown))
        low, high = int(self.present[0]), int(self.present[-1])
        if low < 0 or (class_names and high >= len(class_names)):
            known = f"of {len(class_names)} classes" if class_names else "of at least 0"
            raise ValueError(f"Classes run from {low} to {high}; expected numbers {known}.")
        colors = class_colors(len(class_names) if class_names else high + 1)
        count = len(self.present)
        self.map = ListedColormap([colors[index] for index in self.present])
        self.norm = BoundaryNorm(np.arange(count + 1) - 0.5, count)
        self.names = [class_name(index, class_names) for index in self.present]

    def ranks(self, classes: ArrayLike) -> np.ndarray:
        """The input of `norm` and `map` for class numbers, of the same shape."""
        return np.searchsorted(self.present, classes)

    def bar(self, figure: Figure, axes: Any, title: str, narrow: bool) -> None:
        """Adds the color bar to the right of `axes`, or below it if `narrow`."""
        from matplotlib.cm import ScalarMappable

        location = "bottom" if narrow else "right"
        scale = ScalarMappable(self.norm, self.map)
        bar = figure.colorbar(scale, ax=axes, location=location, shrink=0.75, aspect=25)
        count = len(self.names)
        shown = list(range(0, count, -(-count // MAX_NAMES)))
        names = [self.names[index] for index in shown]
        upright = narrow and max(map(len, names)) > 2
        bar.set_ticks(shown, labels=names, rotation=90 if upright else 0)
        bar.ax.tick_params(length=0, which="both")
        if not narrow:
            bar.ax.invert_yaxis()  # the first class at the top, as in a list
        bar.set_label(title)
        bar.outline.set_visible(False)
