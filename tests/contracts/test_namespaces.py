"""`dir` of a public namespace shows what `__all__` lists, and nothing else."""

from __future__ import annotations

import importlib
import types
from typing import Any

import pytest

import keras_robust as kr

NAMESPACES = {
    "kr": kr,
    **{
        f"kr.{name}": part
        for name in kr.__all__
        if isinstance(part := getattr(kr, name), types.ModuleType)
    },
    "kr.detection.scores": kr.detection.scores,
}


@pytest.mark.parametrize("name", NAMESPACES)
def test_dir_is_what_is_public(name):
    module = NAMESPACES[name]
    extra = {"__version__"} if module is kr else set()
    assert set(dir(module)) == {*module.__all__, *extra}
    assert len(set(module.__all__)) == len(module.__all__)
    for public in dir(module):
        assert hasattr(module, public)


@pytest.mark.parametrize("name", NAMESPACES)
def test_modules_are_public_only_as_namespaces(name):
    """No TensorFlow, no module of machinery."""
    shown = [getattr(NAMESPACES[name], public) for public in dir(NAMESPACES[name])]
    modules = [part for part in shown if isinstance(part, types.ModuleType)]
    assert all(part in NAMESPACES.values() for part in modules)


@pytest.mark.parametrize("name", NAMESPACES)
def test_what_is_public_comes_from_the_package(name):
    """Types and functions of other packages are not shown."""
    module = NAMESPACES[name]
    for public in module.__all__:
        part = getattr(module, public)
        if isinstance(part, (type, types.FunctionType)) and part is not Any:
            assert part.__module__.split(".")[0] == "keras_robust", f"{name}.{public}"


def test_former_and_private_names_are_not_attributes():
    with pytest.raises(AttributeError, match="no attribute 'ascent'"):
        kr.ascent  # noqa: B018
    assert importlib.import_module("keras_robust.attacks.crafting.base").Attack is kr.Attack
