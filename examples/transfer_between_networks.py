"""Train three networks, attack each, and show the adversarial examples to the others (Table 2 of the paper).

    python examples/transfer_between_networks.py --epochs 30 --images 200

The images are scikit-learn's 8x8 digits, which need no download.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch

import intriguing as ig

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--epochs", type=int, default=30, help="passes over the training images")
parser.add_argument("--images", type=int, default=200, help="test images that are attacked")
options = parser.parse_args()

data = ig.data.digits()
adam = partial(torch.optim.Adam, lr=5e-3)
nets = {
    "FC10": ig.fit(ig.models.FullyConnected(widths=[]), data, epochs=options.epochs, optimizer=adam),
    "FC100-100-10": ig.fit(ig.models.FullyConnected(widths=[100, 100]), data, epochs=options.epochs, optimizer=adam),
    "another seed": ig.fit(
        ig.models.FullyConnected(widths=[100, 100]), data, epochs=options.epochs, optimizer=adam, seed=1
    ),
}

images, labels = data.test.images, data.test.labels
sets = {name: ig.craft(net, images, labels, attack="nearest", limit=options.images) for name, net in nets.items()}
# Noise of a size that does not fool: the control.
sets["Gaussian .1"] = ig.craft(None, images, labels, attack="gaussian", stddev=0.1, limit=options.images)

print(ig.transfer_table(nets, sets))
print(ig.transfer_table(nets, sets, excess_over="noise"))
