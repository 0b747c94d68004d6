"""What config.json says, read one field at a time, with what is missing or not ours to compute told in one line."""

from collections.abc import Mapping
from typing import Any

from transformer_jax.errors import InputError

_ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu_exact",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_fast": "gelu",
    "silu": "silu",
    "swish": "silu",
}


class Settings:
    """The fields of a config.json; `origin` names it in messages."""

    def __init__(self, fields: Mapping[str, Any], origin: str = "config.json") -> None:
        self.fields = dict(fields)
        self.origin = origin

    def get(self, name: str, default: Any) -> Any:
        """A field, or the default where it is left out or null."""
        value = self.fields.get(name)
        return default if value is None else value

    def number(self, name: str, default: int | None = None) -> int:
        """A whole number.

        Raises:
            InputError: where it is something else, or missing and there is no default.
        """
        value = self.get(name, default)
        if value is None:
            raise InputError(f"{self.origin}: {name} is missing")
        if not isinstance(value, int) or isinstance(value, bool):
            raise InputError(f"{self.origin}: {name}={value!r} is no whole number")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """A string.

        Raises:
            InputError: where it is something else, or missing and there is no default.
        """
        value = self.get(name, default)
        if not isinstance(value, str):
            raise InputError(f"{self.origin}: {name}={value!r} is no text")
        return value

    def rate(self, name: str, default: float) -> float:
        """A number from 0 to 1.

        Raises:
            InputError: where it is something else.
        """
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InputError(f"{self.origin}: {name}={value!r} is no number from 0 to 1")
        return float(value)

    def real(self, name: str, default: float) -> float:
        """A number.

        Raises:
            InputError: where it is something else.
        """
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{self.origin}: {name}={value!r} is no number")
        return float(value)

    def numbers(self, name: str) -> list[int]:
        """A list of whole numbers; of none where it is left out.

        Raises:
            InputError: where it is something else.
        """
        values = self.get(name, [])
        if not isinstance(values, list) or not all(isinstance(own, int) and own >= 0 for own in values):
            raise InputError(f"{self.origin}: {name}={values!r} is no list of ids")
        return values

    def same(self, *names: str) -> int:
        """A whole number that several fields must agree on.

        Raises:
            InputError: where they do not.
        """
        values = {name: self.number(name) for name in names}
        if len(set(values.values())) > 1:
            told = " and ".join(f"{name}={value}" for name, value in values.items())
            raise InputError(f"{self.origin}: {told}: both sides of a model must have the same here")
        return values[names[0]]

    def activation(self, name: str, default: str) -> Any:
        """Our name of an activation.

        Raises:
            InputError: where we do not have it.
        """
        value = self.text(name, default)
        if value not in _ACTIVATIONS:
            raise InputError(f"{self.origin}: {name}={value!r}: not among {', '.join(sorted(_ACTIVATIONS))}")
        return _ACTIVATIONS[value]

    def only(self, name: str, *allowed: Any) -> None:
        """Checks that a field is left out, or has one of the values that are computed here.

        Raises:
            InputError: where it has another.
        """
        value = self.fields.get(name)
        if value is not None and value not in allowed:
            raise InputError(f"{self.origin}: {name}={value!r} is not supported")


def their_activation(ours: str) -> str:
    """What transformers calls an activation of ours."""
    return {"gelu": "gelu_new", "gelu_exact": "gelu"}.get(ours, ours)
