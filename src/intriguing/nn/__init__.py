"""Put networks into evaluation mode, freeze their parameters, and restore both afterwards."""

from intriguing.nn.state import evaluating, frozen, modules_of

__all__ = ["evaluating", "frozen", "modules_of"]
