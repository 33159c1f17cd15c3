"""Transfer matrices: accuracy of each model on adversarial examples crafted on each other one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack, check_attack
from keras_robust.core.classifier import as_forward, check_ensemble, classifier_of, members_of
from keras_robust.core.graphs import compiled
from keras_robust.core.types import Images, Logits
from keras_robust.evaluation.rendering.markdown import markdown_table
from keras_robust.evaluation.rendering.tables import Cell, Table, table_html
from keras_robust.evaluation.rendering.wording import percent
from keras_robust.evaluation.results.parts import FooledImages
from keras_robust.evaluation.running import attack_runner, batching
from keras_robust.evaluation.running.batching import Data, Model, Progress

ENSEMBLE = "ensemble"


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Accuracy `a(i, j)` of model `j` on adversarial examples crafted on model `i`.

    Args:
        names: names of the models, both as sources and as targets.
        accuracy: `[sources][targets]`, fractions of all images; the diagonal is white-box.
        clean: accuracy of each model on clean images.
        attack: name of the attack.
        radius: radius of its ball.
        samples: number of images.
        seed: seed of the attack.

    Example:
        >>> found = Transfer(("a", "b"), ((0.2, 0.7), (0.6, 0.3)), (0.9, 0.9), "PGD-20", 0.1, 10, 0)
        >>> round(found.transferability, 2)
        0.8
    """

    names: tuple[str, ...]
    accuracy: tuple[tuple[float, ...], ...]
    clean: tuple[float, ...]
    attack: str
    radius: float
    samples: int
    seed: int

    def of(self, source: str, target: str) -> float:
        """`a(source, target)`, by model name."""
        return self.accuracy[self.names.index(source)][self.names.index(target)]

    @property
    def transferability(self) -> float:
        """T, `sum_i mean_(j != i) a_ij - a_ii`: the smaller, the better examples transfer.

        For two models it is the paper's `a_12 - a_11 + a_21 - a_22`; for more, the mean over the
        other models keeps the term of each source in [-1, 1]. An ensemble does not count as a
        model besides its members.
        """
        a = np.asarray(self.accuracy)[: self._num_models, : self._num_models]
        others = (a.sum(axis=1) - a.diagonal()) / (self._num_models - 1)
        return float((others - a.diagonal()).sum())

    @property
    def _num_models(self) -> int:
        """Number of models that `transferability` compares."""
        return len(self.names)

    def table(self) -> Table:
        """One row per source, one column per target, and a first row for clean images."""
        rows = [("no attack", self.clean), *zip(self.names, self.accuracy, strict=True)]
        return Table(
            f"Accuracy on {self.samples:,} images under {self.attack}",
            ("Source \\ target", *self.names),
            tuple((Cell(name), *(Cell(percent(a)) for a in row)) for name, row in rows),
        )

    _repr_html_ = table_html

    def markdown(self) -> str:
        """The table as Markdown."""
        return markdown_table(self.table())


@dataclasses.dataclass(frozen=True)
class EnsembleTransfer(Transfer):
    """Transfer between the members of an ensemble and the ensemble, which is the last model.

    Args:
        subsets: pattern of correct members -> fraction of the images crafted on the ensemble; in
            `"01"` the first member is wrong and the second correct. Only patterns that occur.

    Reference: Bui et al., "Improving Ensemble Robustness by Collaboratively Promoting and Demoting
    Adversarial Robustness" (2021), section 4.3; here for any number of members.
    """

    subsets: Mapping[str, float]

    @property
    def _num_models(self) -> int:
        return len(self.names) - 1

    def subset(self, pattern: str) -> float:
        """`S_pattern`, with one digit per member: 1 if it is correct."""
        if len(pattern) != self._num_models or set(pattern) - set("01"):
            raise ValueError(
                f"The pattern is {pattern!r}; expected 0 or 1 for each of {self._num_models} "
                "members."
            )
        return self.subsets.get(pattern, 0.0)

    @property
    def all_correct(self) -> float:
        """`S_1...1`, the fraction of images on which all members are correct."""
        return self.subset("1" * self._num_models)

    @property
    def all_wrong(self) -> float:
        """`S_0...0`, the fraction of images that fool every member."""
        return self.subset("0" * self._num_models)

    @property
    def non_transferable(self) -> float:
        """nT, the images that fool the ensemble but not every member: `1 - a_en - S_0...0`."""
        return 1 - self.accuracy[-1][-1] - self.all_wrong

    @property
    def single(self) -> float:
        """a_single, the ensemble is correct but not all members are: `a_en - S_1...1`."""
        return self.accuracy[-1][-1] - self.all_correct


def transfer(
    ensemble: keras.Model,
    data: Data,
    attack: Attack,
    *,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    collect: list[FooledImages] | None = None,
) -> EnsembleTransfer:
    """Measures transfer between the members of an ensemble, and the ensemble as a whole.

    Args:
        ensemble: an ensemble of `keras_robust.models.ensemble`, or a robust model around one.
        data, limit, seed, progress: as for `keras_robust.evaluation.evaluate`.
        attack: crafts on each member, and on the ensemble.
        collect: a list to which the images that fool the ensemble are added, for `evaluate`.

    Returns:
        The transfer matrix, and fractions by subsets of correct members.

    Raises:
        TypeError: not an ensemble, or one whose members are not models inside it.
        ValueError: no data, an attack per member, or one that left its ball.

    Example:
        >>> import keras_robust as kr
        >>> model = kr.models.ensemble([kr.models.mlp((2, 2, 1), 3) for _ in range(2)])
        >>> data = np.full([4, 2, 2, 1], 0.5, "float32"), [0, 1, 2, 0]
        >>> transfer(model, data, kr.attacks.pgd(kr.LinfBall(0.1), steps=2)).names
        ('member_1', 'member_2', 'ensemble')

    Reference: Bui et al. (2021), section 4.3.
    """
    ensemble = classifier_of(ensemble)
    check_ensemble("transfer", ensemble)
    members = members_of(ensemble)
    if not members:
        raise TypeError(
            "transfer: the members of this model are not models inside it; expected an ensemble of "
            "`keras_robust.models.ensemble`. Pass separate models to `black_box`."
        )
    models = {member.name: member for member in members} | {ENSEMBLE: ensemble}
    runner = _TransferRunner(models, data, attack, limit, seed, progress)

    def predict(x: Images) -> list[Logits]:
        outputs = as_forward(ensemble)(x)  # one pass for ensemble and members
        return [*tf.unstack(outputs["member_logits"], axis=1), outputs["logits"]]

    clean, attacked = runner.run(predict, collect)
    fields = runner.fields(clean, attacked)
    return EnsembleTransfer(**fields, subsets=correct_subsets(attacked[-1, :-1]))


def black_box(
    models: Mapping[str, Model],
    data: Data,
    attack: Attack,
    *,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Transfer:
    """Measures transfer between several separately trained models (black-box attacks).

    Args:
        models: name -> model, at least two, for the same images.
        data, limit, seed, progress: as for `keras_robust.evaluation.evaluate`.
        attack: crafts on each model.

    Returns:
        The transfer matrix.

    Raises:
        ValueError: fewer than two models, no data, an attack per member, or one that left its ball.

    Example:
        >>> import keras_robust as kr
        >>> models = {"right": lambda x: {"logits": x}, "left": lambda x: {"logits": -x}}
        >>> attack = kr.attacks.fgsm(kr.LinfBall(0.2))
        >>> found = black_box(models, (np.array([[0.6, 0.4]], "float32"), [0]), attack)
        >>> found.accuracy, found.clean
        (((0.0, 1.0), (1.0, 0.0)), (1.0, 0.0))

    Reference: Bui et al. (2021), Tables 12 and 13.
    """
    if not isinstance(models, Mapping) or len(models) < 2:
        raise ValueError(f"models is {models!r}; expected names for at least two models.")
    runner = _TransferRunner(models, data, attack, limit, seed, progress)
    forwards = [as_forward(model) for model in models.values()]
    found = runner.run(lambda x: [forward(x)["logits"] for forward in forwards])
    return Transfer(**runner.fields(*found))


def correct_subsets(correct: np.ndarray) -> dict[str, float]:
    """Pattern of correct members such as `"01"` -> fraction of the images.

    Args:
        correct: `[members, images]` bool.

    Example:
        >>> correct_subsets(np.array([[True, False, True], [True, True, True]]))
        {'01': 0.3333333333333333, '11': 0.6666666666666666}
    """
    patterns, counts = np.unique(correct.T.astype(int), axis=0, return_counts=True)
    return {
        "".join(map(str, pattern)): float(count / correct.shape[1])
        for pattern, count in zip(patterns, counts, strict=True)
    }


class _TransferRunner:
    """Attacks the data batch by batch on each model, and evaluates every model on the result."""

    def __init__(
        self,
        models: Mapping[str, Model],
        data: Data,
        attack: Attack,
        limit: int | None,
        seed: int,
        progress: Progress | None,
    ):
        check_attack("attack", attack)
        if attack.per_member:
            raise ValueError(
                f"The attack {attack.name} returns one batch per member; expected a single batch. "
                "Pass the inner attack, which is run on each member here."
            )
        self.names = tuple(models)
        self.x, self.y, self.batch_size = batching.arrays(data, limit)
        self.attack, self.seed = attack, seed
        self._crafts = [attack.compiled(classifier_of(model)) for model in models.values()]
        self._progress = progress or (lambda line: None)

    def run(
        self,
        predict: Callable[[Images], list[Logits]],
        collect: list[FooledImages] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which targets are correct on clean and on attacked images.

        `[targets, images]` and `[sources, targets, images]` bool; `predict` maps images to the
        logits of each target. What fools the last target is added to `collect`.
        """
        stacked = compiled(lambda x: tf.stack(predict(x)))
        clean = np.zeros([len(self.names), len(self.x)], bool)
        attacked = np.zeros([len(self.names), *clean.shape], bool)
        for number, (rows, real) in enumerate(
            batching.rows_in_batches(len(self.x), self.batch_size)
        ):
            x, y = tf.constant(self.x[rows]), tf.constant(self.y[rows])
            unpadded = rows[:real]
            clean[:, unpadded] = self._correct(stacked(x), rows)[:, :real]
            for source, craft in enumerate(self._crafts):
                x_adv = craft(x, y, (self.seed, number))
                attack_runner.check_within_threat_model(
                    self.attack.name, self.attack, None, x, x_adv
                )
                correct = self._correct(stacked(x_adv), rows)[:, :real]
                attacked[source, :, unpadded] = correct.T
                if collect is not None:
                    fooled = clean[-1, unpadded] & ~correct[-1]
                    name = f"{self.attack.name}, crafted on {self.names[source]}"
                    images = x_adv.numpy()[:real][fooled]
                    collect.append(FooledImages(name, self.x[unpadded][fooled], images))
            self._progress(f"transfer: {unpadded[-1] + 1} of {len(self.x)} images")
        return clean, attacked

    def _correct(self, logits: Logits, rows: np.ndarray) -> np.ndarray:
        return attack_runner.is_correct(logits.numpy(), self.y[rows])

    def fields(self, clean: np.ndarray, attacked: np.ndarray) -> dict[str, Any]:
        """The fields of a `Transfer`."""
        return {
            "names": self.names,
            "accuracy": tuple(tuple(map(float, row)) for row in attacked.mean(axis=-1)),
            "clean": tuple(map(float, clean.mean(axis=-1))),
            "attack": self.attack.name,
            "radius": float(self.attack.ball.radius),
            "samples": len(self.x),
            "seed": self.seed,
        }
