"""Attacks: images in, perturbed images out."""

from keras_robust.attacks.apgd import apgd
from keras_robust.attacks.auto_attack import auto_attack
from keras_robust.attacks.black_box.boundary import boundary
from keras_robust.attacks.black_box.hop_skip_jump import hop_skip_jump
from keras_robust.attacks.black_box.sparse_rs import sparse_rs
from keras_robust.attacks.black_box.spsa import spsa
from keras_robust.attacks.black_box.square import square
from keras_robust.attacks.composite import multi_targeted, restarts, worst_of
from keras_robust.attacks.fast_auto_attack import fast_auto_attack
from keras_robust.attacks.in_each_ball import in_each_ball
from keras_robust.attacks.minimum_norm.brendel_bethge import brendel_bethge
from keras_robust.attacks.minimum_norm.carlini_wagner import carlini_wagner
from keras_robust.attacks.minimum_norm.ddn import ddn
from keras_robust.attacks.minimum_norm.deepfool import deepfool
from keras_robust.attacks.minimum_norm.ead import ead
from keras_robust.attacks.minimum_norm.fab import fab
from keras_robust.attacks.minimum_norm.fmn import fmn
from keras_robust.attacks.minimum_norm.pdpgd import pdpgd
from keras_robust.attacks.minimum_norm.sigma_zero import sigma_zero
from keras_robust.attacks.multi_task.attack import multi_task
from keras_robust.attacks.per_member import per_member
from keras_robust.attacks.pgd import bim, fgsm, mim, pgd, r_fgsm
from keras_robust.attacks.pgd_l0 import pgd_l0
from keras_robust.attacks.smooth_adv import smooth_adv
from keras_robust.attacks.transfer import transfer
from keras_robust.attacks.union import union_pgd

__all__ = [
    "apgd",
    "auto_attack",
    "bim",
    "boundary",
    "brendel_bethge",
    "carlini_wagner",
    "ddn",
    "deepfool",
    "ead",
    "fab",
    "fast_auto_attack",
    "fgsm",
    "fmn",
    "hop_skip_jump",
    "in_each_ball",
    "mim",
    "multi_targeted",
    "multi_task",
    "pdpgd",
    "per_member",
    "pgd",
    "pgd_l0",
    "r_fgsm",
    "restarts",
    "sigma_zero",
    "smooth_adv",
    "sparse_rs",
    "spsa",
    "square",
    "transfer",
    "union_pgd",
    "worst_of",
]


def __dir__() -> list[str]:
    return __all__
