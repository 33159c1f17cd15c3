"""The trained models of the package: their verification, and the table of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import keras_robust as kr
from keras_robust.core.atomic_files import write_text
from keras_robust.core.bounded_files import open_arrays
from keras_robust.evaluation import Card
from keras_robust.evaluation.rendering.markdown import markdown_table
from keras_robust.evaluation.rendering.tables import Cell, Table
from keras_robust.evaluation.rendering.wording import interval, joined, percent
from keras_robust.evaluation.results.parts import wilson_interval
from keras_robust.experiments.recipes import build, schema
from keras_robust.models import zoo

BEGIN, END = "<!-- Trained models: written by trainers.publish -->", "<!-- End -->"
_COLUMNS = (
    "name",
    "threat model",
    "images",
    "clean",
    "robust",
    "attacked by",
    "certified",
    "defense",
    "architecture",
    "parameters",
    "weights",
)


def read_card(name: str) -> Card:
    """The model card of a trained model of the package."""
    return Card.from_json(zoo.card_file(name).read_text("utf-8"))


def verify(
    name: str, data_dir: str | None = None, log: Callable[[str], None] | None = None
) -> tuple[str, ...]:
    """Evaluates the sample of a card again, on the data that its recipe names.

    Args:
        name: a trained model of the package.
        data_dir: the directory of TensorFlow Datasets; None for its default.
        log: called with lines of text.

    Returns:
        A sentence for each difference; empty if the card holds.

    Raises:
        FileNotFoundError: the data set is not on this machine.
        ValueError: an unknown name, or damaged files.
    """
    card, model = read_card(name), zoo.load(name)
    config = schema.from_document(card.recipe)
    config.dataset.data_dir = data_dir
    test = build.data(config, for_training=False).test
    found = card.reevaluate(model, test, log, smoothed=kr.models.smoothed)
    return card.differences(found, zoo.fingerprint(model))


def table(names: Sequence[str] | None = None) -> str:
    """The trained models as a Markdown table, by data and threat model, the most robust first.

    Args:
        names: the models; default all.
    """
    cards = {name: read_card(name) for name in (zoo.available() if names is None else names)}

    def order(name: str) -> tuple[str, str, float, float]:
        report = cards[name].report
        norm = report.threat_model.partition(",")[0]
        return name.partition("/")[0], norm, report.radius, -report.worst_case_accuracy

    rows = tuple(_row(name, cards[name]) for name in sorted(cards, key=order))
    return markdown_table(Table("", _COLUMNS, rows))


def write_table(path: Path) -> None:
    """Replaces the table in a document, between the lines `BEGIN` and `END`.

    Raises:
        ValueError: the document does not have these lines.
    """
    text = path.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path} has no lines {BEGIN!r} and {END!r}, between which the table is.")
    write_text(path, f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}")


def _row(name: str, card: Card) -> tuple[Cell, ...]:
    report = card.report
    certified = max((c.certified_accuracy for c in report.proofs), default=None)
    methods = [c.name for c in report.proofs if c.certified_accuracy == certified]
    file = zoo.weights_file(name)
    with open_arrays(file) as arrays:
        parameters = sum(arrays[key].size for key in arrays)

    def accuracy(value: float) -> Cell:
        return Cell(percent(value), interval(wilson_interval(value, report.samples)))

    return (
        Cell(name),
        Cell(report.threat_model.partition(", bounds")[0].replace("Ball", "")),
        Cell(f"{report.samples:,}"),
        accuracy(report.clean_accuracy),
        accuracy(report.worst_case_accuracy),
        Cell(joined([attack.name for attack in report.attacks])),
        Cell("") if certified is None else Cell(percent(certified), joined(methods)),
        Cell(card.recipe["defense"]["name"]),
        Cell(report.model),
        Cell(f"{parameters:,}"),
        Cell(f"{file.stat().st_size / 1e6:.1f} MB"),
    )
