"""Put networks into evaluation mode, freeze their parameters and restore both; take the logits out of an output."""

from intriguing.nn.outputs import PickOutput, pick_output
from intriguing.nn.state import evaluating, frozen, modules_of

__all__ = ["PickOutput", "evaluating", "frozen", "modules_of", "pick_output"]
