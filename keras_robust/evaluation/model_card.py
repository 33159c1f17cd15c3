"""A model card: what was measured, on what, how it was trained; and whether it still holds."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from keras_robust.attacks.crafting.base import Attack
from keras_robust.evaluation import card_attacks
from keras_robust.evaluation.evaluator import evaluate, named_attacks
from keras_robust.evaluation.rendering import wording
from keras_robust.evaluation.rendering.markdown import markdown_page, markdown_pairs
from keras_robust.evaluation.rendering.page import write_whole
from keras_robust.evaluation.report import Report
from keras_robust.evaluation.results import wilson_interval

SCHEMA_VERSION = 1
SAMPLE = 100  # images that are measured again by whoever wants to see it for himself
# Another processor rounds otherwise, and an image at the boundary may fall or not.
_MOVED = 0.02
# The sample is of the same images: a headline this many deviations from it was not measured.
_DEVIATIONS = 4.0


@dataclasses.dataclass(frozen=True)
class Card:
    """A report with all that is needed to doubt it.

    Args:
        report: of all test images, without example images and single scores.
        sample: the same figures of the first few of them, to be measured again.
        attacks: name -> the attack's configuration, from which it is built again; of one that is
            crafted on another model, also the name of that model.
        recipe: how the model was trained, as JSON values.
        commit: of the code that measured; empty where it is not known.
        weights: a fingerprint of the weights; empty where there is none.

    Example:
        >>> import numpy as np
        >>> import keras_robust as kr
        >>> data = np.array([[0.5, 0.3], [0.9, 0.1]], "float32"), [0, 0]
        >>> attack = kr.attacks.fgsm(kr.LinfBall(0.2))
        >>> model = lambda x: {"logits": x}
        >>> card = make_card(model, data, attack, evaluate(model, data, attack))
        >>> Card.from_json(card.to_json()) == card
        True
        >>> card.differences(card.measured_again(model, data))
        ()

    Reference: Mitchell et al., "Model Cards for Model Reporting" (2019); Croce et al.,
    "RobustBench: A Standardized Adversarial Robustness Benchmark" (2021).
    """

    report: Report
    sample: Report
    attacks: dict[str, Any]
    recipe: dict[str, Any] = dataclasses.field(default_factory=dict)
    commit: str = ""
    weights: str = ""

    def to_json(self) -> str:
        """The card as JSON; `from_json` gives an equal card back."""
        document = {
            "schema_version": SCHEMA_VERSION,
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)},
            "report": json.loads(self.report.to_json()),
            "sample": json.loads(self.sample.to_json()),
        }
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Card:
        """The card that `to_json` wrote.

        Raises:
            ValueError: for text that is no card, or one of another schema version.
        """
        document = json.loads(text)
        known = {"schema_version", *(field.name for field in dataclasses.fields(cls))}
        if not isinstance(document, dict) or set(document) != known:
            raise ValueError(f"Not a model card; expected the fields {', '.join(sorted(known))}.")
        version = document.pop("schema_version")
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"The card has schema version {version!r}; this release of keras_robust reads "
                f"{SCHEMA_VERSION}."
            )
        for name in ("report", "sample"):
            document[name] = Report.from_json(json.dumps(document[name]))
        return cls(**document)

    def to_markdown(self) -> str:
        """The card for people: the report's page, then the recipe, the code, and how to verify."""
        title = f"Model card: {wording.labels((self.report,))[0]}"
        facts = {
            "Commit": self.commit or "not known",
            "Weights": self.weights or "not known",
            "Sample": f"the first {self.sample.samples} test images, for `--verify`",
        }
        blocks = [
            markdown_page((self.report,), title).rstrip("\n"),
            "## Attacks in full",
            markdown_pairs({name: json.dumps(self.attacks[name]) for name in self.attacks}.items()),
            "## Training recipe",
            markdown_pairs((name, str(value)) for name, value in _flat(self.recipe)),
            "## Code and weights",
            markdown_pairs(facts.items()),
        ]
        return "\n\n".join(filter(None, blocks)) + "\n"

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Writes `card.json` and `card.md`, each in one atomic step.

        Args:
            directory: made if it is not there.

        Returns:
            The path of `card.json`.
        """
        target = Path(directory)
        target.mkdir(parents=True, exist_ok=True)
        write_whole(target / "card.md", self.to_markdown())
        write_whole(target / "card.json", self.to_json())
        return target / "card.json"

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the other models that attacks are crafted on, which `measured_again` needs.

        They are not part of the card.
        """
        return card_attacks.sources(self.attacks)

    def measured_again(
        self,
        model: Any,
        data: Any,
        progress: Callable[[str], None] | None = None,
        sources: Mapping[str, Any] | None = None,
    ) -> Report:
        """The figures of the sample, measured on a model.

        Args:
            model: a robust model, a classifier, or a function `images -> {"logits", ...}`.
            data: the test images, in batches of the size that they had.
            progress: called with a line of text now and then, such as `print`.
            sources: name -> model, for each name of `Card.sources`.

        Returns:
            A report of as many images as the sample has.

        Raises:
            ValueError: an attack that is none of this library's, a source that is missing, and as
                `keras_robust.evaluation.evaluate`.
        """
        attacks = {
            name: card_attacks.rebuilt(name, config, sources or {})
            for name, config in self.attacks.items()
        }
        return _measured(model, data, attacks, self.report, self.sample.samples, progress)

    def differences(self, found: Report, weights: str = "") -> tuple[str, ...]:
        """Where the card does not hold.

        Args:
            found: what `measured_again` gave.
            weights: the fingerprint of the weights that were measured.

        Returns:
            A sentence for each figure that moved by more than 2% of the images, and at least one;
            for each headline that the sample contradicts; and for other weights.
        """
        sentences = []
        if self.weights and weights and self.weights != weights:
            sentences.append(f"The weights are {weights}; the card is of {self.weights}.")
        if found.samples != self.sample.samples:
            sentences.append(f"There are {found.samples} images; expected {self.sample.samples}.")
        claimed, sampled, now = map(_figures, (self.report, self.sample, found))
        moved = max(_MOVED, 1 / self.sample.samples) + 1e-9
        for name, share in claimed.items():
            mine, theirs = sampled.get(name), now.get(name)
            if mine is None or theirs is None:
                sentences.append(f"{name} is missing from the sample.")
                continue
            if abs(mine - theirs) > moved:
                sentences.append(
                    f"{name}: the card says {wording.percent(mine)} of the sample, measured "
                    f"{wording.percent(theirs)}."
                )
            low, high = wilson_interval(mine, self.sample.samples, _DEVIATIONS)
            if not low <= share <= high:
                sentences.append(
                    f"{name}: the card says {wording.percent(share)} of all images, which its "
                    f"sample ({wording.interval((low, high))}) contradicts."
                )
        return tuple(sentences)


def make_card(
    model: Any,
    data: Any,
    attacks: Any,
    report: Report,
    *,
    recipe: Mapping[str, Any] | None = None,
    commit: str = "",
    weights: str = "",
    sample: int = SAMPLE,
    progress: Callable[[str], None] | None = None,
) -> Card:
    """The card of a report: measures a sample, and keeps the attacks as they can be built again.

    Args:
        model: what was evaluated.
        data: on what.
        attacks: by what, as `keras_robust.evaluation.evaluate` takes them.
        report: what came out.
        recipe: how the model was trained, as JSON values.
        commit: of the code.
        weights: a fingerprint of the weights.
        sample: how many images, the first ones, are to be measured again.
        progress: called with a line of text now and then, such as `print`.

    Returns:
        The card; `card.save(directory)` writes it as JSON and Markdown.

    Raises:
        ValueError: a report that is not finished, attacks that are not those of the report, and as
            `keras_robust.evaluation.evaluate`.
    """
    if report.unfinished:
        raise ValueError(f"The report is not finished; expected one that is. {report.unfinished}")
    named = named_attacks(attacks)
    if list(named) != [attack.name for attack in report.attacks]:
        raise ValueError(
            f"The attacks are {', '.join(named)}; expected those of the report, "
            f"{', '.join(attack.name for attack in report.attacks)}."
        )
    count = min(sample, report.samples)
    return Card(
        report=_without_images(report),
        sample=_measured(model, data, named, report, count, progress),
        attacks={name: card_attacks.kept(attack) for name, attack in named.items()},
        recipe=dict(recipe or {}),
        commit=commit,
        weights=weights,
    )


def _measured(
    model: Any,
    data: Any,
    attacks: Mapping[str, Attack],
    report: Report,
    count: int,
    progress: Callable[[str], None] | None,
) -> Report:
    """The figures of the first images, under the report's seed."""
    names = report.class_names
    found = evaluate(
        model, data, attacks, limit=count, seed=report.seed, progress=progress, class_names=names
    )
    return _without_images(found)


def _without_images(report: Report) -> Report:
    """A report without what is large: example images and single scores."""
    detection = report.detection
    if detection is not None:
        detection = dataclasses.replace(
            detection,
            clean_scores=(),
            unaware=dataclasses.replace(detection.unaware, scores=()),
            aware=detection.aware and dataclasses.replace(detection.aware, scores=()),
        )
    return dataclasses.replace(report, examples=None, detection=detection)


def _figures(report: Report) -> dict[str, float]:
    return {
        "Clean accuracy": report.clean_accuracy,
        **{f"Accuracy under {attack.name}": attack.accuracy for attack in report.attacks},
        "Worst case": report.worst_case_accuracy,
    }


def _flat(recipe: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The fields of a recipe, nested names joined by dots."""
    pairs: list[tuple[str, Any]] = []
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", value))
    return pairs
