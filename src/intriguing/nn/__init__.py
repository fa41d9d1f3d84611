"""The state of a network while it is measured: evaluation mode and frozen parameters, given back afterwards."""

from intriguing.nn.state import evaluating, frozen, modules_of

__all__ = ["evaluating", "frozen", "modules_of"]
