"""Reasons to doubt the figures of a report that follow from the figures themselves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from keras_robust.attacks.crafting.base import Attack
from keras_robust.evaluation.attack_runner import AttackRunner
from keras_robust.evaluation.rendering.wording import percent
from keras_robust.evaluation.run_state import AttackRunState


def result_warnings(
    bench: AttackRunner, attacks: Mapping[str, Attack], runs: Mapping[str, AttackRunState]
) -> list[str]:
    """Warnings about the attacks of a report: too weak, or weaker than one that knows less.

    Args:
        bench: the images.
        attacks: name -> attack.
        runs: name -> what it left.

    Returns:
        A sentence or two for each reason.

    Reference: Carlini et al., "On Evaluating Adversarial Robustness" (2019), section 5: attacks on
    the model itself are to be stronger than those that transfer from another.
    """
    found = []
    if all(attack.gradient_steps in (0, 1) for attack in attacks.values()):
        found.append("Only one-step attacks were run; iterated ones are stronger.")
    black = [name for name in attacks if crafted_elsewhere(attacks[name], bench.classes)]
    white = [name for name in attacks if name not in black]
    if not white:
        found.append(
            "All attacks were crafted on another model: these figures say nothing of an attacker "
            "who knows this one."
        )
    elif black and all(runs[name].finished for name in white):
        left = np.logical_and.reduce([runs[name].robust for name in white]).mean()
        for name in black:
            share = runs[name].robust.mean()
            if share < left - bench.few:
                found.append(
                    f"{name}, crafted on another model, leaves an accuracy of {percent(share)}; "
                    f"all attacks on the model itself together leave {percent(left)}. These know "
                    "more and are to be stronger: gradients may be masked."
                )
    return found


def crafted_elsewhere(attack: Attack, classes: int) -> bool:
    """Whether an attack is crafted on other models than the one attacked, in all of its rounds."""
    return all(part.attack.source is not None for part in attack.rounds(classes))
