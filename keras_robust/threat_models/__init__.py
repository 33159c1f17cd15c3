"""Threat models: balls in a norm around an image, and the geometry that attacks need of them."""

from keras_robust.threat_models.balls import L1Ball, L2Ball, LinfBall
from keras_robust.threat_models.l0_ball import L0Ball
from keras_robust.threat_models.masks import Mask
from keras_robust.threat_models.patches import PatchBall, frame_mask, patch_mask
from keras_robust.threat_models.union_ball import UnionBall

__all__ = [
    "L0Ball",
    "L1Ball",
    "L2Ball",
    "LinfBall",
    "Mask",
    "PatchBall",
    "UnionBall",
    "frame_mask",
    "patch_mask",
]


def __dir__() -> list[str]:
    return __all__
