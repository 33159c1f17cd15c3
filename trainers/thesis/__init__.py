"""The tables and figures of the thesis by name: `<chapter>-<table>`, `<chapter>-fig-<figure>`.

Bui, "Enhancing Adversarial Robustness: Representation, Ensemble, and Distribution Approaches",
Monash University, 2023. One file per paper, whose numbering of tables and figures the names follow;
`a` is its supplementary material, where that counts anew. Published numbers are copied as printed.
"""

from __future__ import annotations

from keras_robust.core.validation import lookup
from keras_robust.experiments.reproduction.experiment import Experiment
from trainers.thesis import adr, ascl, cce, ta_moo, udr

EXPERIMENTS: dict[str, Experiment] = {
    one.name: one for chapter in (adr, ascl, cce, ta_moo, udr) for one in chapter.EXPERIMENTS
}


def load(name: str) -> Experiment:
    """The experiment of a name.

    Raises:
        ValueError: an unknown experiment.

    Example:
        >>> load("udr-1").parts[0].title
        'MNIST'
    """
    return EXPERIMENTS[lookup("table or figure", name, EXPERIMENTS)]
