"""Are units more meaningful than random directions? Compare the images that excite either most (section 3).

    python examples/units_of_a_layer.py --epochs 10

A unit is meaningful here if its eight top images belong to few classes. For a random direction of the same layer, the
paper found images that look just as meaningful.
"""

from __future__ import annotations

import argparse

import torch

import intriguing as ig
from intriguing.statistics.intervals import t_interval
from intriguing.units.scores import label_purity

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--epochs", type=int, default=10, help="passes over the training images")
parser.add_argument("--layer", default="network.2", help="layer whose output is looked at: the first sigmoid")
parser.add_argument("--top", type=int, default=8, help="top images of a direction")
options = parser.parse_args()

data = ig.data.digits()
model = ig.fit(ig.models.FullyConnected(widths=[64, 64]), data, epochs=options.epochs)
activations, labels = ig.units.collect(model, [options.layer], data.test.batches(100))
vectors = activations[options.layer]  # (images, units)

generator = torch.Generator().manual_seed(0)
num_units = vectors.shape[1]
directions = {
    "units": torch.eye(num_units),
    "random directions": ig.units.random_directions(num_units, num_units, generator=generator),
    "random orthonormal basis": ig.units.random_orthonormal(num_units, num_units, generator=generator),
}
print(f"{options.layer} of {model.label}: {num_units} units, {len(labels)} images they have not seen in training")
print(f"share of the most common class among the {options.top} top images, mean over directions [95 % interval]")
for name, rows in directions.items():
    top = ig.units.TopImages(options.top)
    top.update(vectors @ rows.T, torch.arange(len(vectors)))
    purity = label_purity(labels, top.indices)
    interval = t_interval(purity)
    assert interval is not None
    print(f"{name:26s}{float(purity.mean()):6.3f}  [{interval.low:.3f}, {interval.high:.3f}]")
