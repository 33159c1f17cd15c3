"""Attacks as a model card keeps them: as JSON values, from which they are built again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.transfer import TransferAttack, transfer
from keras_robust.core.config import is_own

_FROM = "transferred_from"


def kept(attack: Attack) -> dict[str, Any]:
    """An attack as JSON values; another model that it is crafted on by its name alone."""
    if isinstance(attack, TransferAttack):
        return {"attack": kept(attack.attack), _FROM: attack.source_name}
    return keras.saving.serialize_keras_object(attack)


def sources(attacks: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the other models that some of the attacks are crafted on."""
    found = (config.get(_FROM) for config in attacks.values() if isinstance(config, dict))
    return tuple(dict.fromkeys(filter(None, found)))


def rebuilt(name: str, config: Any, models: Mapping[str, Any]) -> Attack:
    """An attack from its configuration, which must not make anything else be imported.

    Args:
        name: of the attack, for messages.
        config: what `kept` gave.
        models: name -> model, those that attacks are crafted on.

    Raises:
        ValueError: an attack that is none of this library's, or a model that is missing.
    """
    if isinstance(config, dict) and set(config) == {"attack", _FROM}:
        source = config[_FROM]
        if source not in models:
            raise ValueError(f"The attack {name} is crafted on {source}; give that model as well.")
        return transfer(rebuilt(name, config["attack"], models), models[source], source)
    registered = config.get("registered_name") if isinstance(config, dict) else None
    if not is_own(registered):
        raise ValueError(f"The attack {name} is {registered!r}; expected one of keras_robust.")
    return keras.saving.deserialize_keras_object(config)
