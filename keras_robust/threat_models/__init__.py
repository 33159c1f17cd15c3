"""Threat models: balls in a norm around an image, and the geometry that attacks need of them."""

from keras_robust.threat_models.balls import L1Ball, L2Ball, LinfBall

__all__ = ["L1Ball", "L2Ball", "LinfBall"]


def __dir__() -> list[str]:
    return __all__
