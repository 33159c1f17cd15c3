"""How well a score tells attacked images from clean ones, over all thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from keras_robust.plots.style import (
    COLORS,
    DASHES,
    FAINT,
    NARROW,
    WIDE,
    blank,
    legend_label,
    plain_text,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_robust.detection import Roc


@styled
def roc_curves(
    curves: Mapping[str, Roc] | Mapping[float, Roc],
    *,
    false_alarm_rate: float | None = None,
    narrow: bool = False,
) -> Figure:
    """Draws ROC curves, by attack or by radius, with the areas under them in the legend.

    Args:
        curves: of `keras_robust.detection.roc`, by the name of the attack, each in a colour of its
            own; or by the radius, a number, the darker the smaller.
        false_alarm_rate: a rate to mark, such as the one that a detector is calibrated for.
        narrow: draws for the width of a phone, with the legend below.

    Returns:
        A matplotlib figure; the diagonal is that of a score that tells nothing.

    Raises:
        ValueError: when there is nothing to draw.

    Example:
        >>> from keras_robust.detection import roc
        >>> figure = roc_curves({"PGD-20": roc([0.1, 0.2], [0.2, 0.5], resamples=10)})
        >>> figure.axes[0].get_ylabel()
        'Detection rate'

    Reference: Bui et al., "Improving Ensemble Robustness by Collaboratively Promoting and Demoting
    Adversarial Robustness" (2021), Figures 3 and 4.
    """
    from matplotlib.ticker import PercentFormatter

    if not curves:
        raise ValueError("No curves to draw; expected at least one, of an attack or a radius.")
    legend = 0.18 * (2 * len(curves) + 2)  # inches
    figure = blank(NARROW, 3.7 + legend) if narrow else blank(WIDE, max(4.6, 0.4 + legend))
    axes = figure.subplots()
    for (key, curve), (color, dash) in zip(curves.items(), _looks(curves), strict=True):
        name = legend_label(key) if isinstance(key, str) else f"radius {key:.3g}"
        low, high = curve.interval
        axes.plot(
            curve.false_alarm_rates,
            curve.detection_rates,
            color=color,
            linestyle=dash,
            label=f"{name}\nAUC {curve.auc:.3f} ({low:.3f} to {high:.3f})",
        )
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.0, linestyle=":", label="chance")
    if false_alarm_rate is not None:
        label = f"{false_alarm_rate:.3g} false alarms"
        axes.axvline(false_alarm_rate, color=FAINT, linewidth=1.0, dashes=(4, 3), label=label)
    axes.set(xlabel="False-alarm rate", ylabel="Detection rate", aspect="equal")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=0))
    axes.grid(True)
    figure.legend(loc="outside lower left" if narrow else "outside right upper")
    plain_text(figure)
    return figure


def _looks(curves: Mapping[str, Roc] | Mapping[float, Roc]) -> list[tuple[str, str]]:
    """The colour and the dashes of each curve."""
    if any(isinstance(key, str) for key in curves):
        count = len(curves)
        return [(COLORS[i % len(COLORS)], DASHES[i % len(DASHES)]) for i in range(count)]
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    ranks = sorted(curves)
    # The light end of the scale is too pale for a line on white.
    shade = 0.85 / max(1, len(ranks) - 1)
    return [(to_hex(colormaps["viridis"](shade * ranks.index(key))), "-") for key in curves]
