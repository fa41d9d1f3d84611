"""Our attack beside SuperDeepFool and others on SqueezeNet 1.1 and images of ImageNet: 1,000 classes, 224x224 pixels.

    uv run --group peers benchmarks/imagenet.py --weights squeezenet1_1.pth --archive sample1000.zip

--weights is a state dict of torchvision's squeezenet1_1, --archive a zip of `.../<synset>/<name>.JPEG` with one synset
for each of the 1,000 classes. The first images that the network classifies correctly are attacked: towards any other
class, and towards the ostrich, as in the paper's figure 5. The table is that of benchmarks/attacks.py, whose tracking
counts propagations around the network; every measurement is kept in OUT/imagenet.json as soon as it is made.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from functools import partial
from pathlib import Path

import torch
from attack_tables import rounded, table
from benchmark_networks import Case, Images, take_correct
from measurements import Results, measure
from peers import LIMITS, Method, adv_lib, of_labels, ours, peer
from PIL import Image
from superdeepfool import superdeepfool
from torch import Tensor, nn
from torchvision.models import squeezenet1_1
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

OSTRICH = 9
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Normalised(nn.Module):
    """A network of normalised images as one of images in [0, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - self.mean) / self.std)


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    network = squeezenet1_1()
    network.load_state_dict(torch.load(arguments.weights, weights_only=True))
    images = read(arguments.archive, 3 * arguments.images)
    case = take_correct("SqueezeNet 1.1", Normalised(network).requires_grad_(False), images, arguments.images)
    case = case.to(torch.device(arguments.device))
    results = Results(arguments.out / "imagenet.json", arguments.again)
    for method in methods(targeted=False):
        if chosen(method, arguments.only):
            measure(results, case, method, case.labels, targeted=False)
    others = (case.labels != OSTRICH).nonzero()[:, 0]
    case = Case(case.name, case.model, case.inputs[others], case.labels[others])
    for method in methods(targeted=True):
        if chosen(method, arguments.only):
            measure(results, case, method, torch.full_like(case.labels, OSTRICH), targeted=True)
    frame = rounded(table(results.rows))
    frame.to_csv(arguments.out / "imagenet.csv", index=False)
    print(frame.to_string(index=False))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", help="methods whose names start so")
    parser.add_argument("--again", action="store_true", help="measure anew what is asked for")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    return parser.parse_args()


def read(archive: Path, num: int) -> Images:
    """Read the first images, shorter side 256, centre 224x224; labels are the positions of their sorted synsets."""
    with zipfile.ZipFile(archive) as file:
        names = sorted(name for name in file.namelist() if name.lower().endswith((".jpeg", ".jpg")))
        synsets = {synset: place for place, synset in enumerate(sorted({name.split("/")[-2] for name in names}))}
        if len(synsets) != 1000:
            raise SystemExit(
                f"error: {archive} has {len(synsets)} folders of images; one for each of 1,000 classes is read"
            )
        opened = [Image.open(io.BytesIO(file.read(name))).convert("RGB") for name in names[:num]]
    images = [center_crop(resize(pil_to_tensor(image), [256], antialias=True), [224]) for image in opened]
    labels = [synsets[name.split("/")[-2]] for name in names[:num]]
    return torch.stack(images).float() / 255, torch.tensor(labels)


def methods(targeted: bool) -> list[Method]:
    """Ours at each effort, SuperDeepFool, and DDN and ALMA with as many propagations."""
    found = [ours(effort, targeted)[0] for effort in LIMITS]
    if not targeted:
        found += [Method("SuperDeepFool", "SuperDeepFool", of_labels(superdeepfool), limit) for limit in (None, 60)]
    package = adv_lib()
    if package is not None:
        for limit in LIMITS.values():
            for family, name in (("DDN", "steps"), ("ALMA", "num_steps")):
                attack = partial(peer, package, family, {name: limit // 2}, targeted)
                found.append(Method(f"{family}-{limit // 2}", family, attack))
    return found


def chosen(method: Method, only: list[str] | None) -> bool:
    return not only or any(method.name.startswith(name) for name in only)


if __name__ == "__main__":
    main()
