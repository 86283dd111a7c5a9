"""The type checker that the tests lay over the modules which declare shapes."""

from collections.abc import Callable
from typing import Any

from beartype import beartype


def shapes_only(checked: Callable[..., Any]) -> Callable[..., Any]:
    """Check what jaxtyping annotates and nothing else: refusing a wrong option is the code's own work, and tested."""
    checked.__annotations__ = {
        name: hint for name, hint in checked.__annotations__.items() if "jaxtyping" in repr(hint)
    }
    return beartype(checked)
