"""Certification: bounds of a classifier over a ball, which no attack can exceed."""

from keras_robust.certification.bounds import Bounds
from keras_robust.certification.crown import crown
from keras_robust.certification.crown_ibp import crown_ibp
from keras_robust.certification.ibp import ibp
from keras_robust.certification.margins import is_certified, worst_logits
from keras_robust.certification.network import check_supported

__all__ = [
    "Bounds",
    "check_supported",
    "crown",
    "crown_ibp",
    "ibp",
    "is_certified",
    "worst_logits",
]


def __dir__() -> list[str]:
    return __all__
