"""Attack a network of torchvision: find the nearest images that it takes for something else.

    python examples/attack_torchvision.py --architecture resnet18 --weights resnet18.pth --folder photographs

Without --weights the network has random weights, and without --folder the images are random: nothing is downloaded.
A folder holds test/<class>/*.jpg.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn
from torchvision.models import get_model
from torchvision.transforms import Normalize

import intriguing as ig

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--architecture", default="resnet18", help="name of the network in torchvision")
parser.add_argument("--weights", help="file of its state dict")
parser.add_argument("--folder", help="folder of images")
parser.add_argument("--size", type=int, default=224, help="height and width of the images")
parser.add_argument("--images", type=int, default=8, help="how many of them are attacked")
parser.add_argument("--targets", default="runner_up", help="runner_up, random, least_likely or closest (any class)")
parser.add_argument("--save", help="file for the adversarial set")
options = parser.parse_args()

torch.manual_seed(0)
network = get_model(options.architecture, weights=None)
if options.weights:
    network.load_state_dict(torch.load(options.weights, weights_only=True))
# Attacks work on images in [0, 1], so the normalisation belongs to the network.
model = nn.Sequential(Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), network).eval()

if options.folder:
    subset = ig.data.image_folder(options.folder, size=options.size, channels=3).test
    images = subset.take(torch.randperm(len(subset))[: options.images]).images
else:
    images = torch.rand(options.images, 3, options.size, options.size)
labels = torch.cat([model(image[None]).argmax(1) for image in images]).detach()  # what the network sees now

# "closest" takes a thousand gradients for each image of a network with a thousand classes, "runner_up" a few dozen.
found = ig.craft(model, images, labels, attack="nearest", targets=options.targets)
print(f"{int(found.success.sum())} of {len(found)} images are taken for something else after a small change.")
print("image   class   becomes   distortion (RMS per pixel)")
for number, (before, after, size) in enumerate(zip(found.labels, found.targets, found.distortion, strict=True)):
    print(f"{number:5d}{int(before):8d}{int(after):10d}   {float(size):.5f}")
if options.save:
    found.save(options.save)
