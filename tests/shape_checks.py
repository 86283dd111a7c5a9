"""The type checker that the tests lay over the modules which declare shapes."""

import sys
from collections.abc import Callable
from inspect import isclass, unwrap
from typing import TYPE_CHECKING, Any

from beartype import beartype

if TYPE_CHECKING:
    import pytest


def shapes_only(checked: Callable[..., Any]) -> Callable[..., Any]:
    """Check what jaxtyping annotates and nothing else: refusing a wrong option is the code's own work, and tested."""
    checked.__annotations__ = {
        name: hint for name, hint in checked.__annotations__.items() if "jaxtyping" in repr(hint)
    }
    return beartype(checked)


def remove_shape_checks(monkeypatch: "pytest.MonkeyPatch") -> None:
    """Give the networks as they are outside the tests: TorchScript does not see through what the checks wrap."""
    modules = [module for name, module in sys.modules.items() if name.startswith("pipeline.networks")]
    values = [value for module in modules for value in vars(module).values()]
    for owner in [
        *modules,
        *(value for value in values if isclass(value) and value.__module__.startswith("pipeline.")),
    ]:
        for name, value in list(vars(owner).items()):
            if hasattr(value, "__wrapped__"):
                monkeypatch.setattr(owner, name, unwrap(value))
