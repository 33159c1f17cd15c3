"""Attacks: images in, perturbed images out."""

from keras_robust.attacks.brendel_bethge import brendel_bethge
from keras_robust.attacks.carlini_wagner import carlini_wagner
from keras_robust.attacks.combine import multi_targeted, restarts, worst_of
from keras_robust.attacks.fab import fab
from keras_robust.attacks.per_member import per_member
from keras_robust.attacks.pgd import bim, fgsm, mim, pgd, r_fgsm

__all__ = [
    "bim",
    "brendel_bethge",
    "carlini_wagner",
    "fab",
    "fgsm",
    "mim",
    "multi_targeted",
    "per_member",
    "pgd",
    "r_fgsm",
    "restarts",
    "worst_of",
]
