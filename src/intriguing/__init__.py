"""How stable, and how meaningful, is the inside of a neural network?

A measured reproduction of "Intriguing properties of neural networks" (Szegedy et al., arXiv 1312.6199), and the tools
to go past it. Nothing heavy is imported here: pick ``intriguing.attacks``, ``intriguing.optim``,
``intriguing.checkpoints``.
"""

__version__ = "0.1.0"
