"""Serializable parts: frozen dataclasses that Keras saves and loads as `keras_robust>Name`."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import keras
import numpy as np
from typing_extensions import dataclass_transform

T = TypeVar("T")
PACKAGE = "keras_robust"
# Metadata of a field that configs, `repr` and reports leave out where it is None, so that those of
# releases without the field stay the same.
OMIT_NONE = {"omit_none": True}

# Release 0.1 registered a class under its module at the time, "keras_robust.balls>L2Ball".
_FORMER_MODULES = {
    "adaptive_step": "AdaptiveStep SparseStep",
    "attacks.apgd": "Apgd",
    "attacks.auto_attack": "AutoAttack",
    "attacks.boundary": "Boundary",
    "attacks.brendel_bethge": "BrendelBethge",
    "attacks.carlini_wagner": "CarliniWagner",
    "attacks.combine": "MultiTargeted Restarts WorstOf",
    "attacks.fab": "Fab",
    "attacks.hop_skip_jump": "HopSkipJump",
    "attacks.multi_task": "MultiTask",
    "attacks.per_member": "PerMember",
    "attacks.spsa": "Spsa",
    "attacks.square": "Square",
    "balls": "L1Ball L2Ball LinfBall",
    "contrast": "Contrastive",
    "data.augment": "PadCropFlip ShiftFlip",
    "defenses.adp": "AdaptiveDiversity",
    "defenses.adr": "Compactness Confidence",
    "defenses.ensemble_at": "EnsembleAdversarial",
    "defenses.mart": "Mart",
    "defenses.trades": "Trades",
    "objectives": "Divergence LabelLoss Targeted",
    "robust_loss": "Adversarial Clean",
    "soft_steps": "SoftBallStep",
    "solvers.cagrad": "CAGrad",
    "solvers.hvm": "HVM",
    "solvers.min_max": "MinMax",
    "solvers.min_norm": "MinNorm",
    "solvers.pcgrad": "PCGrad",
    "solvers.task_oriented": "TaskOriented",
    "starts": "Gaussian RandomStep Uniform",
    "steps": "FixedStep MomentumStep",
    "tasks.members": "Members",
    "tasks.transformations": "Transformations",
    "tasks.universal": "Universal",
    "transforms": "Brightness CenterCrop Gamma HorizontalFlip Identity Rotation VerticalFlip",
    "weight_perturbation": "AWP",
}
_FORMER_NAMES = {
    "keras_robust.ascent>Ascent": "GradientAttack",
    "keras_robust.attacks.transferred>Transferred": "TransferAttack",
    "keras_robust.defenses.cce>Crossing": "CollaborativeCrossEntropy",
    "keras_robust.defenses.scl>SecondView": "AugmentedView",
    "keras_robust.dual>Dual": "DualVariable",
    "keras_robust.objectives>DetectorAware": "AdaptiveObjective",
    "keras_robust.robust_loss>Smoothness": "KLConsistency",
    "keras_robust.robust_loss>Sum": "SumOfLosses",
    "keras_robust.soft_steps>PenalisedStep": "PenalizedStep",
    "keras_robust.solvers.uniform>Uniform": "EqualWeights",
    "keras_robust.starts>Clean": "AtInput",
    "keras_robust.starts>Rim": "OnSphere",
    "keras_robust>Combine": "EnsembleLogits",
    "keras_robust>Unactivated": "DenseLogits",
}
_GRADIENT_ATTACK: dict[str, str | None] = {"rule": "step_rule", "start": "initialization"}
# Fields that were renamed since: class -> {former name: name}; None for a removed field.
_FORMER_FIELDS: dict[str, dict[str, str | None]] = {
    "AdaptiveStep": {"rises": "rho"},
    "Apgd": {**_GRADIENT_ATTACK, "samples": "eot_iter"},
    "AutoAttack": {"iterations": "steps", "name": None},
    "BrendelBethge": {"rate": "trust_radius"},
    "CarliniWagner": {"constant": "initial_const", "searches": "binary_search_steps"},
    "Compactness": {"local": "local_weight", "global_": "global_weight"},
    "DualVariable": {"start": "initial_value", "rate": "learning_rate"},
    "Fab": {"bias": "alpha_max", "overshoot": "eta", "pull_back": "beta"},
    "GradientAttack": _GRADIENT_ATTACK,
    "HopSkipJump": {"samples": "n_directions"},
    "MinMax": {"rate": "learning_rate"},
    "MinNorm": {"rate": "learning_rate", "even": "evenness", "first": "first_weights"},
    "MultiTargeted": {"most": "n_target_classes"},
    "MultiTask": {**_GRADIENT_ATTACK, "achieved": "success_criterion"},
    "RandomStep": {"share": "fraction"},
    "SoftBallStep": {"pull": "penalty"},
    "SparseStep": {"share": "fraction"},
    "Spsa": {**_GRADIENT_ATTACK, "samples": "n_directions", "reach": "delta"},
    "Square": {"share": "p_init", "name": None},
    "TaskOriented": {"rate": "learning_rate", "first": "first_weights"},
}


def _encode(value: Any) -> Any:
    if isinstance(value, keras.Model):
        raise ValueError(
            f"Cannot serialize the Keras model {value.name!r} inside a config: its weights would "
            "be lost. Serialize the other arguments, and pass the model again."
        )
    if hasattr(value, "get_config") or callable(value):
        return keras.saving.serialize_keras_object(value)
    if isinstance(value, (tuple, list)):  # a list is restored as a tuple
        return {"tuple": [_encode(item) for item in value]}
    if isinstance(value, np.generic):  # JSON has Python's numbers only
        return value.item()
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, dict) and "class_name" in value:
        return keras.saving.deserialize_keras_object(value)
    if isinstance(value, dict) and set(value) == {"tuple"}:
        return tuple(_decode(item) for item in value["tuple"])
    return value


def shown_fields(part: Any) -> tuple[dataclasses.Field, ...]:
    """The fields of a dataclass, without those marked `OMIT_NONE` that are None."""
    return tuple(
        field
        for field in dataclasses.fields(part)
        if "omit_none" not in field.metadata or getattr(part, field.name) is not None
    )


def _repr(self: Any) -> str:
    values = (f"{f.name}={getattr(self, f.name)!r}" for f in shown_fields(self) if f.repr)
    return f"{type(self).__qualname__}({', '.join(values)})"


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def serializable(cls: type[T]) -> type[T]:
    """Makes `cls` a frozen dataclass with `get_config` and `from_config`, registered with Keras.

    Fields may hold numbers, strings, booleans, None, functions and objects registered with Keras,
    and tuples of these.

    Example:
        >>> from keras_robust import LinfBall
        >>> ball = LinfBall(radius=0.3)
        >>> LinfBall.from_config(ball.get_config()) == ball
        True
    """
    cls = dataclasses.dataclass(frozen=True)(cls)

    def get_config(self: Any) -> dict[str, Any]:
        """The fields, with nested parts serialized by Keras."""
        return {f.name: _encode(getattr(self, f.name)) for f in shown_fields(self)}

    def from_config(klass: type[T], config: dict[str, Any]) -> T:
        """Rebuilds the object from the result of `get_config`."""
        former = _FORMER_FIELDS.get(klass.__name__, {})
        fields = {former.get(name, name): value for name, value in config.items()}
        return klass(**{name: _decode(value) for name, value in fields.items() if name})

    if any("omit_none" in field.metadata for field in dataclasses.fields(cls)):  # type: ignore[arg-type]
        cls.__repr__ = _repr  # type: ignore[method-assign]
    cls.get_config = get_config  # type: ignore[attr-defined]
    cls.from_config = classmethod(from_config)  # type: ignore[attr-defined]
    return register(cls)


def register(cls: type[T]) -> type[T]:
    """Registers a class of the package with Keras as `keras_robust>Name`, in any module.

    Keras also finds it under its names in older releases. A class from outside the package is
    registered as `its.module>Name`.

    Raises:
        ValueError: another class of the package has that name.

    Example:
        >>> import keras_robust as kr
        >>> keras.saving.get_registered_name(kr.LinfBall)
        'keras_robust>LinfBall'
    """
    inside = cls.__module__.split(".")[0] == PACKAGE
    known = keras.saving.get_custom_objects()
    other = known.get(f"{PACKAGE}>{cls.__name__}")
    if inside and other is not None and other.__module__ != cls.__module__:
        raise ValueError(
            f"{cls.__name__} is registered twice: by {other.__module__} and {cls.__module__}."
        )
    keras.saving.register_keras_serializable(package=PACKAGE if inside else cls.__module__)(cls)
    if inside:
        known.update(dict.fromkeys(_former_names(cls.__name__), cls))
    return cls


def _former_names(name: str) -> list[str]:
    """The registered names of a class in older releases."""
    moved = [
        f"{PACKAGE}.{m}>{name}" for m, names in _FORMER_MODULES.items() if name in names.split()
    ]
    return moved + [former for former, now in _FORMER_NAMES.items() if now == name]


def is_own(registered_name: Any) -> bool:
    """Whether a registered name is that of a class of this package, in this or an older release.

    Example:
        >>> is_own("keras_robust>L2Ball"), is_own("keras_robust.balls>L2Ball"), is_own("os>system")
        (True, True, False)
    """
    return str(registered_name).partition(">")[0].split(".")[0] == PACKAGE


def replace(part: T, **changes: Any) -> T:
    """A copy of a serializable part with some fields changed; fields may become tensors.

    Example:
        >>> from keras_robust import LinfBall
        >>> replace(LinfBall(radius=0.3), radius=0.1).radius
        0.1
    """
    return dataclasses.replace(part, **changes)  # type: ignore[type-var]
