"""Results of an experiment as Markdown and as a document, published numbers beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from keras_robust.evaluation.rendering.markdown import escape
from keras_robust.experiments.reproduction.experiment import Column, Row
from keras_robust.experiments.reproduction.outcome import Outcome, Spread

GAIN = "mean gain"
_GAIN_COLUMN = Column(GAIN)


def markdown(outcome: Outcome, cuts: Sequence[str], command: str) -> str:
    """The page of an experiment.

    Args:
        outcome: the results.
        cuts: what the scale changed.
        command: the command of the user.
    """
    experiment, scale = outcome.experiment, outcome.scale
    seeds = "one seed" if outcome.seeds == 1 else f"{outcome.seeds} seeds"
    spread = (
        "in brackets the 95 % Wilson interval, which covers the sampling of test images only"
        if outcome.seeds == 1
        else "mean ± standard deviation, in brackets the 95 % interval of the mean over the seeds"
    )
    blocks = [f"# {escape(experiment.title)}"]
    if cuts:
        blocks.append(
            f"Scale `{scale.name}` ({scale.about}), {seeds}. It differs from the original:"
        )
        blocks.append("\n".join(f"- {escape(cut)}" for cut in cuts))
    else:
        blocks.append(f"Scale `{scale.name}`: nothing is cut, {seeds}.")
    blocks.append(f"Accuracies in percent, {spread}. Rows in italics are the published numbers.")
    for number, part in enumerate(experiment.parts):
        if len(experiment.parts) > 1:
            blocks.append(f"## {escape(part.title)}")
        blocks.append(_table(outcome, number))
    blocks += [
        f"![{picture.name}]({experiment.name}/{picture.name}.png)"
        for picture in experiment.pictures
    ]
    if experiment.notes:
        blocks.append("\n".join(f"- {escape(note)}" for note in experiment.notes))
    blocks.append(f"```\n{command}\n```")
    return "\n\n".join(blocks) + "\n"


def _table(outcome: Outcome, number: int) -> str:
    part = outcome.experiment.parts[number]
    head = ["", *(escape(column.title) for column in part.columns)]
    head += [GAIN] if part.gain_over else []
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in part.rows:
        lines.append(_line(row_cells(outcome, number, row)))
        if row.thesis:
            published = [_published(value) for value in row.thesis]
            if part.gain_over:
                published.append(_published(part.thesis_gain.get(row.title)))
            lines.append(_line(["*thesis*", *published]))
    return "\n".join(lines)


def row_cells(outcome: Outcome, number: int, row: Row) -> list[str]:
    """The title of a row and its cells."""
    part = outcome.experiment.parts[number]
    cells = [escape(row.title)]
    cells += [_cell(outcome.spread(number, row.title, column), column) for column in part.columns]
    if part.gain_over:
        cells.append(_cell(outcome.gain(number, row.title), _GAIN_COLUMN))
    return cells


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(spread: Spread | None, column: Column) -> str:
    if spread is None:
        return ""
    text = _number(spread.mean, column)
    if spread.deviation is not None:
        text += f" ± {_number(spread.deviation, column)}"
    if spread.interval is not None:
        low, high = (_number(end, column) for end in spread.interval)
        text += f" ({low} to {high})"
    return text


def _number(value: float, column: Column) -> str:
    return f"{100 * value:.1f}" if column.percent else f"{value:.4g}"


def _published(value: float | None) -> str:
    return "" if value is None else f"*{value:g}*"


def document(outcome: Outcome, cuts: Sequence[str], command: str) -> dict[str, Any]:
    """The results as plain data for a JSON file; values are fractions, not percentages."""
    experiment = outcome.experiment
    return {
        "experiment": experiment.name,
        "title": experiment.title,
        "command": command,
        "scale": outcome.scale.name,
        "seeds": outcome.seeds,
        "differences": list(cuts),
        "notes": list(experiment.notes),
        "parts": [_part(outcome, number) for number in range(len(experiment.parts))],
    }


def _part(outcome: Outcome, number: int) -> dict[str, Any]:
    part = outcome.experiment.parts[number]
    rows = []
    for row in part.rows:
        gain = outcome.gain(number, row.title)
        cells = [
            None
            if values is None
            else {"values": values, **_fields(outcome.spread(number, row.title, column))}
            for column in part.columns
            for values in [outcome.values(number, row.title, column)]
        ]
        rows.append(
            {"title": row.title, "cells": cells, "thesis": list(row.thesis)}
            | ({} if gain is None else {"gain": _fields(gain)})
        )
    columns = [{"title": column.title, "percent": column.percent} for column in part.columns]
    return {"title": part.title, "columns": columns, "rows": rows}


def _fields(spread: Spread | None) -> dict[str, Any]:
    return {} if spread is None else dataclasses.asdict(spread)
