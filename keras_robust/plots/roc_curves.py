"""ROC curves of a detection score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keras_robust.core.validation import check_number
from keras_robust.plots.style import (
    FAINT,
    NARROW,
    WIDE,
    curve_style,
    disable_math_text,
    legend_height,
    legend_label,
    new_figure,
    percent_ticks,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_robust.detection import Roc


@styled
def roc_curves(
    curves: Mapping[str, Roc] | Mapping[float, Roc],
    *,
    adaptive: Mapping[str, Roc] | Mapping[float, Roc] | None = None,
    false_alarm_rate: float | None = None,
    narrow: bool = False,
) -> Figure:
    """Draws ROC curves, by attack or by radius, with the areas under them in the legend.

    Args:
        curves: of `keras_robust.detection.roc`, by attack name, each in its own color; or by
            radius, a number, darker for smaller ones.
        adaptive: curves of the adaptive attack, under some of the same keys: the same colors, as
            thin dashes.
        false_alarm_rate: a rate to mark, such as the one that a detector is calibrated for.
        narrow: lays out for the width of a phone, with the legend below.

    Returns:
        A matplotlib figure; the diagonal is the curve of a score without information.

    Raises:
        ValueError: no curves, an adaptive attack on something else, or a rate outside [0, 1].

    Example:
        >>> from keras_robust.detection import roc
        >>> figure = roc_curves({"PGD-20": roc([0.1, 0.2], [0.2, 0.5], resamples=10)})
        >>> figure.axes[0].get_ylabel()
        'Detection rate'

    Reference: Bui et al., "Improving Ensemble Robustness by Collaboratively Promoting and Demoting
    Adversarial Robustness" (2021), Figures 3 and 4.
    """
    if not curves:
        raise ValueError("curves is empty; expected at least one, by attack or radius.")
    knowing: dict[Any, Roc] = dict(adaptive or {})
    if not set(knowing) <= set(curves):
        raise ValueError(
            f"adaptive has {sorted(map(str, knowing))}; expected some of the curves "
            f"{sorted(map(str, curves))}."
        )
    names: dict[Any, str] = {key: legend_label(key) if isinstance(key, str) else f"radius {key:.3g}"
             for key in curves}  # fmt: skip
    legend = legend_height(names.values(), len(curves) + len(knowing) + 4)
    figure = (
        new_figure(NARROW, 3.7 + legend) if narrow else new_figure(WIDE, max(4.6, 0.4 + legend))
    )
    axes = figure.subplots()
    for (key, curve), style in zip(curves.items(), _line_styles(curves), strict=True):
        axes.plot(
            curve.false_alarm_rates,
            curve.detection_rates,
            **style,
            label=f"{names[key]}\nAUC {_area(curve)}",
        )
        if key in knowing:
            axes.plot(
                knowing[key].false_alarm_rates,
                knowing[key].detection_rates,
                color=style["color"],
                linestyle=(0, (4, 2)),
                linewidth=1.2,
                label=f"adaptive {_area(knowing[key])}",
            )
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.0, linestyle=":", label="chance")
    if false_alarm_rate is not None:
        check_number("false_alarm_rate", false_alarm_rate, 0, 1)
        label = f"false-alarm rate {false_alarm_rate:.3g}"
        axes.axvline(false_alarm_rate, color=FAINT, linewidth=1.0, dashes=(4, 3), label=label)
    axes.set(xlabel="False-alarm rate", ylabel="Detection rate", aspect="equal")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    for axis in (axes.xaxis, axes.yaxis):
        percent_ticks(axis)
    axes.grid(True)
    figure.legend(loc="outside lower left" if narrow else "outside right upper")
    disable_math_text(figure)
    return figure


def _area(curve: Roc) -> str:
    low, high = curve.interval
    return f"{curve.auc:.3f} ({low:.3f} to {high:.3f})"


def _line_styles(curves: Mapping[str, Roc] | Mapping[float, Roc]) -> list[dict[str, Any]]:
    """The color and the dashes of each curve."""
    if any(isinstance(key, str) for key in curves):
        return [curve_style(number) for number in range(len(curves))]
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    radii = sorted(curves)
    # The light end of the scale is too pale for a line on white.
    step = 0.85 / max(1, len(radii) - 1)
    colors = [to_hex(colormaps["viridis"](step * radii.index(key))) for key in curves]
    return [{**curve_style(0), "color": color} for color in colors]
