"""Transfer: who errs on the adversarial examples that were crafted on whom."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack, check_attack
from keras_robust.core.classifier import as_forward, check_ensemble, members_of
from keras_robust.core.types import Images
from keras_robust.evaluation import attack_runner, batching
from keras_robust.evaluation.rendering.markdown import markdown_table
from keras_robust.evaluation.rendering.tables import Cell, Table
from keras_robust.evaluation.rendering.wording import percent

ENSEMBLE = "ensemble"


@dataclasses.dataclass(frozen=True)
class Transfer:
    """The accuracy `a(i, j)` of model `j` on adversarial examples that were crafted on model `i`.

    Args:
        names: of the models, sources and targets alike.
        accuracy: `[sources][targets]`, shares of all images, clean mistakes among them; on the
            diagonal each model is attacked itself.
        clean: the accuracy of each model on clean images.
        attack: what crafted the examples.
        radius: of its ball.
        samples: how many images.
        seed: of the random starts.

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
        """`a(source, target)`, by the names of the models."""
        return self.accuracy[self.names.index(source)][self.names.index(target)]

    @property
    def transferability(self) -> float:
        """T: how much better others do than the one attacked, `sum_i mean_(j != i) a_ij - a_ii`.

        The smaller, the better examples transfer. Of two models it is the thesis's `a_12 - a_11 +
        a_21 - a_22`; of more, the mean over the others keeps what each source adds between -1 and
        1. An ensemble as a whole is none of them.
        """
        a = np.asarray(self.accuracy)[: self._count, : self._count]
        others = (a.sum(axis=1) - a.diagonal()) / (self._count - 1)
        return float((others - a.diagonal()).sum())

    @property
    def _count(self) -> int:
        """How many of the models are compared by `transferability`."""
        return len(self.names)

    def table(self) -> Table:
        """A row for each source, a column for each target, and a first row of clean images."""
        rows = [("no attack", self.clean), *zip(self.names, self.accuracy, strict=True)]
        return Table(
            f"Accuracy on {self.samples:,} images attacked by {self.attack}",
            ("Crafted on \\ accuracy of", *self.names),
            tuple((Cell(name), *(Cell(percent(a)) for a in row)) for name, row in rows),
        )

    def markdown(self) -> str:
        """The table as Markdown."""
        return markdown_table(self.table())


@dataclasses.dataclass(frozen=True)
class EnsembleTransfer(Transfer):
    """Transfer among the members of an ensemble, which is the last of the models itself.

    Args:
        subsets: the share of images crafted on the ensemble that the members get right in each
            way: `"01"` is wrong by the first and right by the second. All ways that occur.

    Reference: Bui et al., "Improving Ensemble Robustness by Collaboratively Promoting and Demoting
    Adversarial Robustness" (2021), section 4.3; here for any number of members.
    """

    subsets: Mapping[str, float]

    @property
    def _count(self) -> int:
        return len(self.names) - 1

    def subset(self, pattern: str) -> float:
        """`S_pattern`, a digit for each member: 1 where it is right."""
        if len(pattern) != self._count or set(pattern) - set("01"):
            raise ValueError(
                f"The pattern is {pattern!r}; expected 0 or 1 for each of {self._count} members."
            )
        return self.subsets.get(pattern, 0.0)

    @property
    def all_right(self) -> float:
        """`S_1...1`, the images on which no member errs."""
        return self.subset("1" * self._count)

    @property
    def all_wrong(self) -> float:
        """`S_0...0`, the images that fool every member: what transfers among all of them."""
        return self.subset("0" * self._count)

    @property
    def non_transferable(self) -> float:
        """nT: the images that fool the ensemble and not every member, `1 - a_en - S_0...0`."""
        return 1 - self.accuracy[-1][-1] - self.all_wrong

    @property
    def single(self) -> float:
        """a_single: where the ensemble is right, though not all members are: `a_en - S_1...1`."""
        return self.accuracy[-1][-1] - self.all_right


def transfer(
    ensemble: Any,
    data: Any,
    attack: Attack,
    *,
    limit: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> EnsembleTransfer:
    """Crafts on each member of an ensemble, and on the whole, and asks all of them.

    Args:
        ensemble: as `keras_robust.models.ensemble` makes, or a robust model around one.
        data: a `tf.data.Dataset` of batches `(images, labels)`, or a pair of arrays.
        attack: the attack.
        limit: use only the first so many images.
        seed: of the random starts.
        progress: called with a line of text now and then, such as `print`.

    Returns:
        The matrix and what follows from it.

    Raises:
        TypeError: a model that is no ensemble, or whose members are no models inside of it.
        ValueError: no data, an attack per member, or one that left its ball.

    Example:
        >>> import keras_robust as kr
        >>> model = kr.models.ensemble([kr.models.mlp((2, 2, 1), 3) for _ in range(2)])
        >>> data = np.full([4, 2, 2, 1], 0.5, "float32"), [0, 1, 2, 0]
        >>> found = transfer(model, data, kr.attacks.pgd(kr.LinfBall(0.1), steps=2))
        >>> found.names, round(sum(found.subsets.values()), 6)
        (('member_1', 'member_2', 'ensemble'), 1.0)

    Reference: Bui et al. (2021), section 4.3.
    """
    ensemble = getattr(ensemble, "classifier", ensemble)
    check_ensemble("transfer", ensemble)
    members = members_of(ensemble)
    if not members:
        raise TypeError(
            "transfer: the members of this model are no models inside of it; expected an ensemble "
            "of `keras_robust.models.ensemble`. Models of their own go to `black_box`."
        )
    models = {member.name: member for member in members} | {ENSEMBLE: ensemble}
    run = _Run(models, data, attack, limit, seed, progress)

    def everybody(x: Images) -> list[tf.Tensor]:
        outputs = as_forward(ensemble)(x)  # one pass tells of the members as well
        return [*tf.unstack(outputs["member_logits"], axis=1), outputs["logits"]]

    clean, attacked = run(everybody)
    return EnsembleTransfer(**run.facts(clean, attacked), subsets=subsets(attacked[-1, :-1]))


def black_box(
    models: Mapping[str, Any],
    data: Any,
    attack: Attack,
    *,
    limit: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Transfer:
    """Crafts on each of several models, trained apart, and asks all of them.

    Args:
        models: name -> model, at least two, for the same images.
        data: a `tf.data.Dataset` of batches `(images, labels)`, or a pair of arrays.
        attack: the attack.
        limit: use only the first so many images.
        seed: of the random starts.
        progress: called with a line of text now and then, such as `print`.

    Returns:
        The matrix.

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
    run = _Run(models, data, attack, limit, seed, progress)
    forwards = [as_forward(model) for model in models.values()]
    return Transfer(**run.facts(*run(lambda x: [forward(x)["logits"] for forward in forwards])))


def subsets(right: np.ndarray) -> dict[str, float]:
    """The share of images for each way in which members are right, in the order of the patterns.

    Args:
        right: `[members, images]` bool.

    Returns:
        A pattern such as `"01"` -> a share of the images.

    Example:
        >>> subsets(np.array([[True, False, True], [True, True, True]]))
        {'01': 0.3333333333333333, '11': 0.6666666666666666}
    """
    patterns, counts = np.unique(right.T.astype(int), axis=0, return_counts=True)
    return {
        "".join(map(str, pattern)): float(count / right.shape[1])
        for pattern, count in zip(patterns, counts, strict=True)
    }


class _Run:
    """The pass over the data: crafted batches are asked about, and forgotten."""

    def __init__(
        self,
        models: Mapping[str, Any],
        data: Any,
        attack: Attack,
        limit: int | None,
        seed: int,
        progress: Callable[[str], None] | None,
    ):
        check_attack("attack", attack)
        if attack.per_member:
            raise ValueError(
                f"The attack is {attack.name}; expected the attack inside of it, which is run on "
                "each member here."
            )
        self.names = tuple(models)
        self.x, self.y, self.size = batching.arrays(data, limit)
        self.attack, self.seed = attack, seed
        self._crafts = [
            attack.compiled(getattr(model, "classifier", model)) for model in models.values()
        ]
        self._progress = progress or (lambda line: None)

    def __call__(
        self, everybody: Callable[[Images], list[tf.Tensor]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Who is right on clean images, `[targets, images]`; and `[sources, targets, images]`."""
        predict = tf.function(
            lambda x: tf.stack(everybody(x)), autograph=False, reduce_retracing=True
        )
        clean = np.zeros([len(self.names), len(self.x)], bool)
        attacked = np.zeros([len(self.names), *clean.shape], bool)
        for number, (rows, real) in enumerate(batching.rows_in_batches(len(self.x), self.size)):
            x, y = tf.constant(self.x[rows]), tf.constant(self.y[rows])
            kept = rows[:real]
            clean[:, kept] = attack_runner.is_correct(predict(x).numpy(), self.y[rows])[:, :real]
            for source, craft in enumerate(self._crafts):
                x_adv = craft(x, y, (self.seed, number))
                attack_runner.check_within_threat_model(
                    self.attack.name, self.attack, None, x, x_adv
                )
                found = attack_runner.is_correct(predict(x_adv).numpy(), self.y[rows])
                attacked[source, :, kept] = found[:, :real].T
            self._progress(f"transfer: {kept[-1] + 1} of {len(self.x)} images")
        return clean, attacked

    def facts(self, clean: np.ndarray, attacked: np.ndarray) -> dict[str, Any]:
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
