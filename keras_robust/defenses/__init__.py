"""Defenses: functions `(classifier, ball, ...) -> RobustModel`, one file for each."""

from keras_robust.defenses.adp import adp
from keras_robust.defenses.adr import adr
from keras_robust.defenses.ascl import ascl
from keras_robust.defenses.cce import cce
from keras_robust.defenses.crown_ibp import crown_ibp
from keras_robust.defenses.ensemble_at import ensemble_at
from keras_robust.defenses.free import free
from keras_robust.defenses.gaussian import gaussian
from keras_robust.defenses.ibp import ibp
from keras_robust.defenses.mart import mart
from keras_robust.defenses.n_fgsm import n_fgsm
from keras_robust.defenses.pgd_at import pgd_at
from keras_robust.defenses.sabr import sabr
from keras_robust.defenses.scl import scl
from keras_robust.defenses.standard import standard
from keras_robust.defenses.ta_moo import ta_moo
from keras_robust.defenses.trades import trades
from keras_robust.defenses.udr import udr
from keras_robust.defenses.union import union
from keras_robust.defenses.wrm import wrm

__all__ = [
    "adp",
    "adr",
    "ascl",
    "cce",
    "crown_ibp",
    "ensemble_at",
    "free",
    "gaussian",
    "ibp",
    "mart",
    "n_fgsm",
    "pgd_at",
    "sabr",
    "scl",
    "standard",
    "ta_moo",
    "trades",
    "udr",
    "union",
    "wrm",
]


def __dir__() -> list[str]:
    return __all__
