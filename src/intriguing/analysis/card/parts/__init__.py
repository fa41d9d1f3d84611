"""The parts of a card, each measured slice by slice."""
