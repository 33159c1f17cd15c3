"""Model cards: a report with everything needed to reproduce it, and their verification."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.transfer import TransferAttack, transfer
from keras_robust.core.atomic_files import write_text
from keras_robust.core.config import is_own
from keras_robust.evaluation.certify import Smoothed, certify_again
from keras_robust.evaluation.detector_attacks import adaptive_attack
from keras_robust.evaluation.evaluator import Attacks, evaluate, named_attacks
from keras_robust.evaluation.rendering import wording
from keras_robust.evaluation.rendering.markdown import markdown_page, markdown_pairs
from keras_robust.evaluation.rendering.notebook import report_html
from keras_robust.evaluation.rendering.report_json import damage_named
from keras_robust.evaluation.report import Report
from keras_robust.evaluation.results.display import html_table
from keras_robust.evaluation.results.parts import wilson_interval
from keras_robust.evaluation.running.batching import Data, Model, Progress
from keras_robust.losses.uncertainty import SCORES

SCHEMA_VERSION = 1
SAMPLE = 100  # number of images re-evaluated by `--verify`
_SOURCE = "transferred_from"
# Other processors round differently, and an image at the decision boundary may change sides.
_TOLERANCE = 0.02
# The sample is part of all images: a figure this many deviations from it was not measured.
_DEVIATIONS = 4.0


@dataclasses.dataclass(frozen=True)
class Card:
    """Model card: a report with everything needed to reproduce it.

    Args:
        report: results on all test images, without example images and scores.
        sample: results on the first few of them, to be re-evaluated.
        attacks: name -> serialized attack, with the adaptive attack on a detector; for a transfer
            attack, with the name of its source.
        recipe: how the model was trained, as JSON values.
        commit: commit of the code; empty if unknown.
        weights: fingerprint of the weights; empty if unknown.

    Example:
        >>> import numpy as np
        >>> import keras_robust as kr
        >>> data = np.array([[0.5, 0.3], [0.9, 0.1]], "float32"), [0, 0]
        >>> attack = kr.attacks.fgsm(kr.LinfBall(0.2))
        >>> model = lambda x: {"logits": x}
        >>> card = make_card(model, data, attack, evaluate(model, data, attack))
        >>> Card.from_json(card.to_json()) == card
        True
        >>> card.differences(card.reevaluate(model, data))
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

    def __repr__(self) -> str:
        commit = f", commit {self.commit[:12]}" if self.commit else ""
        return f"<Card of {self.report!r}, sample of {self.sample.samples:,} images{commit}>"

    def _repr_html_(self) -> str:
        """The card in a notebook: the report, and what the model was made of."""
        facts = {
            "Sample": f"{self.sample.samples:,} images",
            "Commit": self.commit or "unknown",
            "Weights": self.weights or "unknown",
            **{name: str(value) for name, value in _flat(self.recipe)},
        }
        return f"{report_html(self.report)}\n{html_table(('Model card', ''), facts.items())}"

    def to_json(self) -> str:
        """The card as JSON; `from_json` returns an equal card."""
        document = {
            "schema_version": SCHEMA_VERSION,
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)},
            "report": json.loads(self.report.to_json()),
            "sample": json.loads(self.sample.to_json()),
        }
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Card:
        """The card that `to_json` wrote, in this release or in 0.1.

        Raises:
            ValueError: not a card, or one of another schema version.
        """
        with damage_named("card"):
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
        for name, kind in (("attacks", dict), ("recipe", dict), ("commit", str), ("weights", str)):
            if not isinstance(document[name], kind):
                expected = "names with values" if kind is dict else "a string"
                raise ValueError(f"{name} is {document[name]!r}; expected {expected}.")
        for config in document["attacks"].values():
            source = config.get(_SOURCE) if isinstance(config, dict) else None
            if not isinstance(source, str | None):
                raise ValueError(f"{_SOURCE} is {source!r}; expected the name of a model.")
        return cls(**document)

    def to_markdown(self) -> str:
        """The card as Markdown: the report, the recipe, the code, and how to verify it."""
        title = f"Model card: {wording.labels((self.report,))[0]}"
        facts = {
            "Commit": self.commit or "unknown",
            "Weights": self.weights or "unknown",
            "Sample": f"the first {self.sample.samples} test images, for `--verify`",
        }
        blocks = [
            markdown_page((self.report,), title).rstrip("\n"),
            "## Serialized attacks",
            markdown_pairs({name: json.dumps(self.attacks[name]) for name in self.attacks}.items()),
            "## Training recipe",
            markdown_pairs((name, str(value)) for name, value in _flat(self.recipe)),
            "## Code and weights",
            markdown_pairs(facts.items()),
        ]
        return "\n\n".join(filter(None, blocks)) + "\n"

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Writes `card.json`, whose path is returned, and `card.md` atomically into a directory."""
        target = Path(directory)
        write_text(target / "card.md", self.to_markdown())
        write_text(target / "card.json", self.to_json())
        return target / "card.json"

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the source models of transfer attacks, which `reevaluate` needs."""
        configs = (config for config in self.attacks.values() if isinstance(config, dict))
        return tuple(dict.fromkeys(filter(None, (config.get(_SOURCE) for config in configs))))

    def reevaluate(
        self,
        model: Model,
        data: Data,
        progress: Progress | None = None,
        sources: Mapping[str, Model] | None = None,
        smoothed: Smoothed | None = None,
    ) -> Report:
        """Evaluates a model on the sample of the card.

        Args:
            model: a robust model, a classifier, or a function `images -> {"logits", ...}`.
            data: the test images, with the batch size of the original evaluation.
            progress: called with lines of text, such as `print`.
            sources: name -> model, for each name in `Card.sources`.
            smoothed: `keras_robust.models.smoothed`, for certificates of smoothed classifiers.

        Raises:
            ValueError: an attack of another library, a missing source, `smoothed` missing, or as
                for `keras_robust.evaluation.evaluate`.
        """
        attacks = {
            name: _rebuilt(name, config, sources or {}) for name, config in self.attacks.items()
        }
        count = self.sample.samples
        return _evaluated(model, data, attacks, self.report, count, progress, smoothed)

    def differences(self, found: Report, weights: str = "") -> tuple[str, ...]:
        """Differences between the card and the result of `reevaluate`, a sentence each.

        An accuracy differs if it moved by more than 2% of the images (and at least one image). An
        accuracy on all images may not contradict the sample, and no figure of the card or of the
        new evaluation may refute its worst case.

        Args:
            found: the result of `reevaluate`.
            weights: fingerprint of the evaluated weights.
        """
        sentences = []
        if self.weights and weights and self.weights != weights:
            sentences.append(f"The weights are {weights}; the card has {self.weights}.")
        if found.samples != self.sample.samples:
            sentences.append(f"There are {found.samples} images; expected {self.sample.samples}.")
        others = len(sentences)
        of_all, of_sample, now = map(_accuracies, (self.report, self.sample, found))
        # What ran on all images and not on the sample may lower the worst case, and that only.
        more = set(self.report.worst_case_found_by) - set(self.sample.worst_case_found_by)
        tolerance = max(_TOLERANCE, 1 / self.sample.samples) + 1e-9
        for name, accuracy in of_all.items():
            before, after = of_sample.get(name), now.get(name)
            if before is None or after is None:
                sentences.append(f"{name} is missing from the sample.")
                continue
            if abs(before - after) > tolerance:
                sentences.append(
                    f"{name}: {wording.percent(before)} of the sample in the card, "
                    f"{wording.percent(after)} now."
                )
            low, high = wilson_interval(before, self.sample.samples, _DEVIATIONS)
            low = 0.0 if more and name == "Worst case" else low
            if not low <= accuracy <= high:
                sentences.append(
                    f"{name}: {wording.percent(accuracy)} of all images in the card, which "
                    f"contradicts its sample ({wording.interval((low, high))})."
                )
        if found.errors:
            sentences += found.errors
        if len(sentences) == others:  # else they say the same
            sentences += [*self.report.contradictions, *self.sample.contradictions]
        return tuple(sentences)


def make_card(
    model: Model,
    data: Data,
    attacks: Attacks,
    report: Report,
    *,
    recipe: Mapping[str, Any] | None = None,
    commit: str = "",
    weights: str = "",
    sample: int = SAMPLE,
    progress: Progress | None = None,
    smoothed: Smoothed | None = None,
) -> Card:
    """The card of a report: evaluates a sample, and serializes the attacks.

    Args:
        model, data, attacks, progress: as for the evaluation, `keras_robust.evaluation.evaluate`.
        report: its result.
        recipe: how the model was trained, as JSON values.
        commit: commit of the code.
        weights: fingerprint of the weights.
        sample: number of images, the first ones, that can be re-evaluated.
        smoothed: `keras_robust.models.smoothed`, for certificates of smoothed classifiers.

    Raises:
        ValueError: an unfinished report, attacks that are not those of the report, or as for
            `keras_robust.evaluation.evaluate`.
    """
    if report.unfinished:
        raise ValueError(
            f"The report is unfinished; expected a complete evaluation. {report.unfinished}"
        )
    named = named_attacks(attacks)
    if list(named) != [attack.name for attack in report.attacks]:
        raise ValueError(
            f"The attacks are {', '.join(named)}; expected those of the report, "
            f"{', '.join(attack.name for attack in report.attacks)}."
        )
    count = min(sample, report.samples)
    named |= _adaptive(named, report)
    return Card(
        report=_without_images(report),
        sample=_evaluated(model, data, named, report, count, progress, smoothed),
        attacks={name: _serialized(attack) for name, attack in named.items()},
        recipe=dict(recipe or {}),
        commit=commit,
        weights=weights,
    )


def _adaptive(attacks: Mapping[str, Attack], report: Report) -> dict[str, Attack]:
    """The adaptive attack that the report ran on a detector, by name; empty if it ran none."""
    detection = report.detection
    if detection is None or detection.adaptive is None:
        return {}
    names = [name for name, score in SCORES.items() if score.title == detection.score_name]
    found = [adaptive_attack(attacks, name) for name in names]
    return {attack.name: attack for attack in found if attack.name == detection.adaptive.name}


def _serialized(attack: Attack) -> dict[str, Any]:
    """An attack as JSON values; the source of a transfer attack by name only."""
    if isinstance(attack, TransferAttack):
        return {"attack": _serialized(attack.attack), _SOURCE: attack.source_name}
    return keras.saving.serialize_keras_object(attack)


def _rebuilt(name: str, config: Any, sources: Mapping[str, Model]) -> Attack:
    """The attack that `_serialized` serialized; classes of other packages are refused."""
    if isinstance(config, dict) and set(config) == {"attack", _SOURCE}:
        source = config[_SOURCE]
        if source not in sources:
            raise ValueError(
                f"The attack {name} is crafted on {source}; pass that model in `sources`."
            )
        return transfer(_rebuilt(name, config["attack"], sources), sources[source], source)
    registered = config.get("registered_name") if isinstance(config, dict) else None
    if not is_own(registered):
        raise ValueError(f"The attack {name} is {registered!r}; expected one of keras_robust.")
    try:
        attack = keras.saving.deserialize_keras_object(config)
    except Exception as error:  # whatever a damaged value raises inside Keras or the attack
        raise ValueError(f"The attack {name} of the card is damaged: {error}") from error
    if not isinstance(attack, Attack):
        raise ValueError(f"The attack {name} of the card is {attack!r}; expected an attack.")
    return attack


def _evaluated(
    model: Model,
    data: Data,
    attacks: Mapping[str, Attack],
    report: Report,
    count: int,
    progress: Progress | None,
    smoothed: Smoothed | None,
) -> Report:
    """A report on the first `count` images, with the seed of `report`."""
    ball = next(iter(named_attacks(attacks).values())).ball
    certificates = [
        certify_again(result, model, data, ball, limit=count, progress=progress, smoothed=smoothed)
        for result in report.certificates
    ]
    found = evaluate(
        model,
        data,
        attacks,
        limit=count,
        seed=report.seed,
        progress=progress,
        class_names=report.class_names,
        checks=bool(report.checks),
        certificates=certificates,
        budget_per_image=report.budget_per_image,
    )
    return _without_images(found)


def _without_images(report: Report) -> Report:
    """A report without example images and scores, which are large."""
    detection = report.detection
    if detection is not None:
        adaptive = detection.adaptive
        detection = dataclasses.replace(
            detection,
            clean_scores=(),
            oblivious=dataclasses.replace(detection.oblivious, scores=()),
            adaptive=adaptive and dataclasses.replace(adaptive, scores=()),
        )
    return dataclasses.replace(report, examples=None, detection=detection)


def _accuracies(report: Report) -> dict[str, float]:
    shown = {attack.name: attack.accuracy for attack in report.attacks}
    adaptive = report.detection and report.detection.adaptive
    if adaptive and adaptive.accuracy is not None:
        shown[adaptive.name] = adaptive.accuracy
    return {
        "Clean accuracy": report.clean_accuracy,
        **{f"Accuracy under {name}": accuracy for name, accuracy in shown.items()},
        "Worst case": report.worst_case_accuracy,
        **{f"Certified by {c.name}": c.certified_accuracy for c in report.certificates},
    }


def _flat(recipe: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The fields of a recipe, with nested names joined by dots."""
    pairs: list[tuple[str, Any]] = []
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", value))
    return pairs
