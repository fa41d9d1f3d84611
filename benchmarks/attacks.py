"""Our attacks beside SciPy's L-BFGS-B and beside published attacks: one table, one picture.

    uv run benchmarks/attacks.py                       # ours and SciPy, on networks trained here in a minute
    uv run benchmarks/attacks.py --checkpoint runs/train/NAME/model.ckpt
    uv run --group peers benchmarks/attacks.py         # with C&W, DDN, ALMA, FMN, FAB, PDGD, PDPGD and APGD beside them
    uv run --group peers benchmarks/attacks.py --networks-file networks.py --network resnet20 --images 64
    uv run --group peers benchmarks/attacks.py --program net.pt2 --images-file test.npz --budgets 60 300 2000

The peers come from one package, adv-lib (github.com/jeromerony/adversarial-library); without it they are left out.
SuperDeepFool is written from its paper (superdeepfool.py). Same network, same images, same targets, one thread, one
process; success is recomputed on what each attack returns, and a distortion is the mean over an attack's successes.
Propagations, forward and backward passes of an image, are counted around the network, for ours as for the others.

With --budgets each attack is also set up for a number of propagations and stopped there; then the nearest adversarial
image that the network was shown counts (tracking.py). --networks-file names a Python file, which is run: NETWORKS maps
names to data sets, load(name) gives a module. Its networks are attacked on the first images that they classify
correctly, at 60, 300 and 2,000 propagations unless --budgets says otherwise.

Every measurement is kept in OUT/attacks.json, or OUT/attacks_networks.json with --networks-file, as soon as it is made,
so an interrupted run goes on where it stopped; --again measures anew. Take the timings on a quiet machine.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from attack_tables import MEAN, curves, rounded, table, times, with_means
from benchmark_networks import TRAINED_HERE, Case, mnist, multilayer, opened, published, read_images, trained_here
from measurements import Results, measure
from peers import Method, methods, ours, penalty, within

from intriguing.attacks import choose_targets


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    stem = "attacks_networks" if arguments.networks_file else "attacks"
    results = Results(arguments.out / f"{stem}.json", arguments.again)
    for case in cases(arguments):
        case = case.to(device)
        for mode in arguments.modes:
            attack_case(results, case, mode == "targeted", arguments.budgets, arguments.only)
        if arguments.growth:
            growth(results, case, arguments)
    frame = table(results.rows)
    if arguments.networks_file:
        frame = with_means(frame)
    rounded(frame).to_csv(arguments.out / f"{stem}.csv", index=False)
    means = rounded(frame).query(f"network == {MEAN!r}")
    print((means if len(means) else rounded(frame)).to_string(index=False))
    if arguments.networks_file:
        curves(table(results.rows).query("mode == 'untargeted'"), arguments.out / f"{stem}.png")
    else:
        times(frame, arguments.out / f"{stem}.png")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("INTRIGUING_DATA", "data"), help="folder with MNIST/raw")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--networks-file", type=Path, help="a Python file with NETWORKS and load(name); it is run")
    source.add_argument("--checkpoint", type=Path, nargs="+", default=[], help="networks of train.py")
    source.add_argument("--program", type=Path, nargs="+", default=[], help="files of torch.export or TorchScript")
    parser.add_argument(
        "--network",
        nargs="+",
        default=[],
        help=f"names in --networks-file, or of {', '.join(TRAINED_HERE)}, which are trained here; default: all",
    )
    parser.add_argument("--images-file", type=Path, help="an .npz of images, bytes or in [0, 1], and labels; not MNIST")
    parser.add_argument("--images", type=int, help="default: 64 with --networks-file, else 512")
    parser.add_argument("--modes", nargs="+", choices=("targeted", "untargeted"), help="default: both, or untargeted")
    parser.add_argument("--budgets", nargs="*", type=int, help="propagations an image at which attacks are stopped")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", help="methods whose names start so")
    parser.add_argument("--growth", action="store_true", help="also how time grows with images, pixels and classes")
    parser.add_argument("--again", action="store_true", help="measure anew what is asked for")
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks"), help="where trained networks are kept")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    arguments = parser.parse_args()
    if arguments.network and (arguments.checkpoint or arguments.program):
        parser.error("--network names networks of --networks-file or those that are trained here; leave it out")
    if arguments.images_file and not (arguments.networks_file or arguments.checkpoint or arguments.program):
        parser.error("--images-file needs --networks-file, --checkpoint or --program: networks trained here know MNIST")
    if arguments.growth and arguments.networks_file:
        parser.error("--growth is measured with MNIST and networks trained here; leave out --networks-file")
    if arguments.images is None:
        arguments.images = 64 if arguments.networks_file else 512
    if arguments.modes is None:
        arguments.modes = ["untargeted"] if arguments.networks_file else ["targeted", "untargeted"]
    if arguments.budgets is None:
        arguments.budgets = [60, 300, 2000] if arguments.networks_file else []
    return arguments


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """Networks with their images: of a file, checkpoints, programs, or small ones that are trained for the purpose."""
    if arguments.networks_file:
        source = arguments.networks_file, arguments.network, arguments.data
        return published(*source, arguments.images_file, arguments.images)
    if arguments.checkpoint or arguments.program:
        images = read_images(arguments.images_file) if arguments.images_file else mnist(arguments.data, train=False)
        return opened(arguments.checkpoint, arguments.program, images, arguments.images)
    return trained_here(arguments.network or TRAINED_HERE, arguments.cache, arguments.data, arguments.images)


def attack_case(results: Results, case: Case, targeted: bool, budgets: list[int], only: list[str] | None) -> None:
    """Measure all methods on one network: at their usual settings, then at each number of propagations."""
    with torch.no_grad():
        logits = case.model(case.inputs)
    classes = case.labels
    if targeted:
        classes = choose_targets("random", case.labels, logits, generator=torch.Generator().manual_seed(0))
    wanted = methods(targeted, linear=case.name.startswith("FC10("))
    for budget in budgets:
        wanted += within(budget, targeted, logits.shape[1])
    for method in wanted:
        if not only or any(method.name.startswith(name) for name in only):
            measure(results, case, method, classes, targeted)


def growth(results: Results, case: Case, arguments: argparse.Namespace) -> None:
    """How the time of `lbfgs` and `nearest` grows with images, pixels and classes (the latter on random networks)."""
    torch.manual_seed(0)
    test = mnist(arguments.data, train=False)
    jobs = [(f"{case.name}, {n} images", case.model, test[0][:n]) for n in (100, 1000, 10000)]
    for side in (14, 28, 56):
        images = F.interpolate(test[0][:256], size=side)
        jobs.append((f"random, {side}x{side} pixels", multilayer(100, pixels=side**2), images))
    for classes in (10, 100, 1000):
        network = multilayer(100, classes=classes)
        jobs.append((f"random, {classes} classes", network, test[0][:256]))
    for label, network, images in jobs:
        job = Case(label, network, images, images.new_zeros(len(images), dtype=torch.int64)).to(case.inputs.device)
        with torch.no_grad():
            logits = job.model(job.inputs)
            targets = choose_targets("runner_up", logits.argmax(dim=1), logits)  # within reach also on random networks
        for method in (ours("default", True)[0], Method("lbfgs", "lbfgs", partial(penalty, True))):
            measure(results, job, method, targets, targeted=True)


if __name__ == "__main__":
    main()
