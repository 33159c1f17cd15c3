"""The tables and figures of the thesis by name: `<chapter>-<table>`, `<chapter>-fig-<figure>`.

Bui, "Enhancing Adversarial Robustness: Representation, Ensemble, and Distribution Approaches",
Monash University, 2023. One file per paper, whose numbering of tables and figures the names follow;
`a` is its supplementary material, where that counts anew. Published numbers are copied as printed.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType

from keras_robust.core.validation import lookup
from keras_robust.experiments.reproduction.experiment import Experiment
from trainers.thesis import adr, ascl, cce, claims, ta_moo, udr

CHAPTERS: dict[str, ModuleType] = {
    "adr": adr,
    "ascl": ascl,
    "cce": cce,
    "ta_moo": ta_moo,
    "udr": udr,
    "claims": claims,
}
EXPERIMENTS: dict[str, Experiment] = {
    one.name: one for chapter in CHAPTERS.values() for one in chapter.EXPERIMENTS
}


def load(names: Iterable[str]) -> list[Experiment]:
    """The experiments of names.

    Args:
        names: names of experiments, or of chapters, which stand for all of theirs.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> [one.name for one in load(["udr-1", "adr"])][:3]
        ['udr-1', 'adr-1', 'adr-2']
    """
    found: dict[str, Experiment] = {}
    for name in names:
        if name not in CHAPTERS:
            lookup("table or figure", name, (*EXPERIMENTS, *CHAPTERS))
        chosen = CHAPTERS[name].EXPERIMENTS if name in CHAPTERS else (EXPERIMENTS[name],)
        found |= {one.name: one for one in chosen}
    return list(found.values())
