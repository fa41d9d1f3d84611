"""Bound each layer of a network, certify its answers, and attack it: the truth lies between (section 4.3).

    python examples/bounds_and_certificates.py --epochs 20 --penalty 0.15

No perturbation of a smaller L2 norm than the certified radius changes the answer; the attack shows one that does.
"""

from __future__ import annotations

import argparse
import math

import intriguing as ig

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--epochs", type=int, default=20, help="passes over the training images")
parser.add_argument("--penalty", type=float, default=0.15, help="L2 radius of Lipschitz-margin training; 0: none")
parser.add_argument("--images", type=int, default=50, help="test images that are certified and attacked")
options = parser.parse_args()

data = ig.data.digits()
network = ig.models.FullyConnected(widths=[32], activation="relu", spectral_penalty_kind="margin")
model = ig.fit(network, data, epochs=options.epochs, spectral_penalty=options.penalty)

product = 1.0
print("layer              kind            Lipschitz bound")
for name, kind, bound in ig.lipschitz_bounds(model.network, data.input_shape):
    product *= bound
    print(f"{name:19s}{kind:16s}{bound:8.3f}")
certifier = ig.Certifier(model.network, data.input_shape)
print(f"whole network: at most {product:.3f} by the product, {certifier.constant():.3f} by a semidefinite program")

images, labels = data.test.images[: options.images], data.test.labels[: options.images]
radii = certifier.radii(model(images), labels)
found = ig.craft(model, images, labels, attack="nearest")
norms = found.distortion * math.sqrt(images[0].numel())  # the distortion is the RMS per pixel, this the L2 norm
print("                    certified radius   nearest adversarial example")
for share in (0.1, 0.5, 0.9):
    print(
        f"{share:4.0%} of images up to{float(radii.quantile(share)):14.3f}{float(norms.double().quantile(share)):24.3f}"
    )
print(f"the radius is below the example for {int((radii <= norms).sum())} of {len(images)} images")
