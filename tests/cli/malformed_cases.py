"""Inputs that cannot be used: damaged and hostile files, wrong configs, wrong arguments, and what must be said of each.

A hostile file here would leave the file ``executed`` behind, if any of it were run.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from intriguing.adversarial_set import KEY
from intriguing.runs.records import with_checksum
from intriguing.storage import checkpoint_file, safetensors_file
from intriguing.storage.files import file_sha256

NET, HALF, MADE = Path("runs/train/net"), Path("runs/train/half"), Path("runs/attack/made")
MODEL, LAST, SET = NET / "model.ckpt", HALF / "checkpoints/last.ckpt", MADE / "set.safetensors"
CSV = ("logger=csv",)
FRESH = ("data=digits", "logger=csv", "name=fresh", "trainer.max_epochs=1")
RESUME = (
    *("data=digits", "logger=csv", "trainer.max_epochs=2", "model.settings.widths=[6,5]", "name=half"),
    *("callbacks=back_feeding", "callbacks.back_feeding.size=4"),
)
AGAIN = ("data=digits", "logger=csv", "trainer.max_epochs=2", "model.settings.widths=[6,5]", "name=net")
ATTACK = (f"checkpoints={MODEL}", "logger=csv", "limit=4", "name=fresh")
AGAIN_ATTACK = (f"checkpoints={NET}", "logger=csv", "limit=12", "name=made")
ANALYZE = (f"networks={NET}", f"sets={MADE}", "logger=csv", "sections=[table1,transfer]")


@dataclass(frozen=True)
class Case:
    """An input that cannot be used.

    Attributes:
        what: the input, in words.
        script: whose it is.
        arguments: the command line.
        words: what the line must say: the culprit.
        make: prepares the folder, which holds the runs; further arguments may come of it.
        left: what may be left behind, and nothing else.
    """

    what: str
    script: str
    arguments: tuple[str, ...]
    words: str
    make: Callable[[Path], Sequence[str] | None] | None = None
    left: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.what


# -- files, damaged --------------------------------------------------------------------------------------------------


def flipped(file: Path, place: float | bytes) -> Callable[[Path], None]:
    """One bit changed: at a share of the file's length, or inside the first occurrence of some bytes."""

    def make(folder: Path) -> None:
        content = bytearray((folder / file).read_bytes())
        at = content.index(place) if isinstance(place, bytes) else int(place * len(content))
        content[at] ^= 4
        (folder / file).write_bytes(content)

    return make


def replaced(file: Path, content: bytes) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)

    return make


def cut(file: Path, share: float = 0.5) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: int(share * len(content))])

    return make


def directory(file: Path) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).mkdir()

    return make


def moved(make_before: Callable[[Path], None], source: Path, to: str) -> Callable[[Path], None]:
    """The file out of its run folder, where no run.json speaks for it."""

    def make(folder: Path) -> None:
        make_before(folder)
        (folder / source).rename(folder / to)

    return make


# -- files, forged: every digest is right ------------------------------------------------------------------------------


class Payload:
    """What a pickle that attacks its reader looks like."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def record_of(file: Path) -> None:
    """Let run.json beside a forged file vouch for it."""
    record = file.parent / "run.json"
    info = json.loads(record.read_text())
    info["artifacts"][file.name] = file_sha256(file)
    record.write_text(json.dumps(with_checksum(info)))


def forged_checkpoint(change: Callable[[dict[str, Any]], object], file: Path = MODEL) -> Callable[[Path], None]:
    """A checkpoint with another content."""

    def make(folder: Path) -> None:
        content = checkpoint_file.read(folder / file)
        change(content)
        with open(folder / file, "w+b") as target:
            checkpoint_file.write(content, target)

    return make


def forged_archive(
    data: bytes, extra: Callable[[zipfile.ZipFile], object] = lambda archive: None, file: Path = MODEL
) -> Callable[[Path], None]:
    """A checkpoint whose pickle is this."""

    def make(folder: Path) -> None:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/version", b"3\n")
            archive.writestr("archive/byteorder", b"little")
            extra(archive)
        with open(folder / file, "w+b") as target:
            target.write(content.getvalue())
            checkpoint_file.add_digest(target)

    return make


def tensor_of(shape: Sequence[int], stride: Sequence[int], numel: int) -> bytes:
    """The pickle of {"state_dict": {"w": a tensor}} whose storage says that it has so many numbers."""

    def tuple_of(numbers: Sequence[int]) -> bytes:
        return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", number) for number in numbers) + b"t"

    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu"
    storage += b"\x8a\x08" + struct.pack("<q", numel) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0" + tuple_of(shape) + tuple_of(stride)
    tensor += b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}X\x0a\0\0\0state_dict}X\x01\0\0\0w" + tensor + b"ss."


def bomb(archive: zipfile.ZipFile) -> None:
    archive.writestr("archive/data/0", b"\0" * (1 << 28), compress_type=zipfile.ZIP_DEFLATED)


def four_bytes(archive: zipfile.ZipFile) -> None:
    archive.writestr("archive/data/0", b"\0" * 4)


def twice(archive: zipfile.ZipFile) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("archive/data.pkl", b"\x80\x02}.")


def forged_set(
    change: Callable[[dict[str, Any], dict[str, Any]], object], text: Callable[[str], str] = lambda text: text
) -> Callable[[Path], None]:
    """A set with other tensors or another entry."""

    def make(folder: Path) -> None:
        file = folder / SET
        with open(file, "rb") as source:
            header = json.loads(source.read(struct.unpack("<Q", source.read(8))[0]))
        entry, tensors = json.loads(header["__metadata__"][KEY]), load_file(file)
        del entry["sha256"]
        change(tensors, entry)
        before = safetensors_file._text
        safetensors_file._text = lambda entry: text(before(entry))
        try:
            safetensors_file.save({name: value.contiguous() for name, value in tensors.items()}, file, KEY, entry)
        finally:
            safetensors_file._text = before
        record_of(file)

    return make


def raw_set(content: bytes) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / SET).write_bytes(content)
        record_of(folder / SET)

    return make


def forged_record(file: Path, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        info = json.loads((folder / file).read_text())
        change(info)
        (folder / file).write_text(json.dumps(with_checksum(info)))

    return make


def linked(file: Path) -> Callable[[Path], None]:
    """A link that leads out of the run folder, to a copy of the file."""

    def make(folder: Path) -> None:
        (folder / "elsewhere").mkdir()
        target = (folder / file).rename(folder / "elsewhere" / file.name)
        (folder / file).symlink_to(target)

    return make


def set_tensor(name: str, value: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    return forged_set(lambda tensors, entry: tensors.update({name: value(tensors[name])}))


def plus(row: int, value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor[row] = value
        return tensor

    return change


def inner(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    for key in keys:
        content = content[key]
    return content


# -- images, configs -------------------------------------------------------------------------------------------------


def images(broken: bytes | None, classes: Sequence[str] = ("cat", "dog")) -> Callable[[Path], None]:
    """A folder of images, 8x8; one of them is something else."""

    def make(folder: Path) -> None:
        from PIL import Image

        for part in ("train", "test"):
            for name in classes if part == "train" else ("cat", "dog"):
                place = folder / "images" / part / name
                place.mkdir(parents=True)
                for number in range(2):
                    Image.new("RGB", (8, 8), (number * 90, 30, 60)).save(place / f"{number}.png")
        if broken is not None:
            (folder / "images/train/cat/0.png").write_bytes(broken)

    return make


def mnist(folder: Path) -> None:
    raw = folder / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind, number in (("images-idx3", 2051), ("labels-idx1", 2049)):
            (raw / f"{part}-{kind}-ubyte").write_bytes(struct.pack(">II", number, 10) + b"\0" * 20)


STUDY = """\
name: mine
title: Mine
seeds: [0]
limit: 4
results: null
overrides: []
train: {all: [data=digits, trainer.max_epochs=1], networks: {a: [network=fc10_1]}}
attack: [{networks: ["*"], overrides: [attack=lbfgs]}]
"""


def study(old: str = "", new: str = "") -> Callable[[Path], Sequence[str]]:
    """A study of one's own, with one thing changed."""

    def make(folder: Path) -> Sequence[str]:
        (folder / "conf" / "study").mkdir(parents=True)
        assert old in STUDY
        (folder / "conf" / "study" / "mine.yaml").write_text(STUDY.replace(old, new, 1))
        return (f"hydra.searchpath=[file://{folder}/conf]",)

    return make


MINE = ("study=mine", "logger=csv", "processes=1")
OUTSIDE = {"label": "FC", "weights": "../../secret"}
DEEP = b"[" * 100_000
NOT_ONE = "no checkpoint, or damaged"


def train(what: str, words: str, *arguments: str, make: Any = None, left: tuple[str, ...] = ()) -> Case:
    return Case(what, "train.py", arguments, words, make, left)


def attack(what: str, words: str, *arguments: str, make: Any = None) -> Case:
    return Case(what, "attack.py", arguments, words, make)


def analyze(what: str, words: str, *arguments: str, make: Any = None) -> Case:
    return Case(what, "analyze.py", arguments, words, make)


def hostile(what: str, words: str, make: Any) -> Case:
    """A forged checkpoint, given to attack.py."""
    return attack(f"a checkpoint {what}", words, *ATTACK, make=make)


def forged(what: str, words: str, make: Any) -> Case:
    """A forged or damaged set, given to analyze.py."""
    return analyze(f"a set {what}", words, *ANALYZE, make=make)


DIGITS = ("data=digits", "logger=csv")
ARGUMENTS = [
    train("an unknown network", "network has no option fc7; it has ae400_10", *DIGITS, "network=fc7"),
    train("an unknown model", "model/fc7", *DIGITS, "model=fc7"),
    train("an unknown data set", "data/imagenet", *CSV, "data=imagenet"),
    train("an unknown split", "split/p3", *DIGITS, "split=p3"),
    train("an unknown key", "lambda", *DIGITS, "lambda=3"),
    train("an unknown option", "unrecognized arguments: --fast", *DIGITS, "--fast"),
    train("an override without a value", "data.only", *DIGITS, "data.only"),
    train("a run name with a slash", "cannot be a folder", *DIGITS, "name=a/b"),
    train(
        "MNIST that is not there", "MNIST is not there", *CSV, "data=mnist", "data.root=nowhere", "data.download=false"
    ),
    attack("an unknown attack", "attack/fgsm7", *CSV, "attack=fgsm7"),
    attack("no checkpoints", "checkpoints has no value", *CSV),
    attack("a glob that matches nothing", "matches no checkpoint", *CSV, "checkpoints=none/*"),
    attack("limit=0", "limit must be a whole number of at least 1, got 0", *ATTACK, "limit=0"),
    attack("an unknown subset", "unknown subset 'validation'", *ATTACK, "subset=validation"),
    attack("an unknown rule for targets", "unknown attack.targets 'furthest'", *ATTACK, "attack.targets=furthest"),
    attack("a setting the attack has not", "attack.settings.speed is no setting", *ATTACK, "+attack.settings.speed=3"),
    attack("a setting of the wrong kind", "attack.settings.max_iter", *ATTACK, "attack.settings.max_iter=many"),
    attack(
        "a setting out of range",
        "expected attack.settings.c_factor as a finite number > 1, got 0.5",
        *ATTACK,
        "attack.settings.c_factor=0.5",
    ),
    attack("a stddev of 0", "attack.stddev", *CSV, "attack=gaussian", "data=digits", "attack.stddev=0"),
    attack("noise for no data", "give data=mnist or data=digits", *CSV, "attack=gaussian"),
    attack("data the network was not trained on", "was trained on digits", *ATTACK, "data=mnist"),
    attack("an option that is none", "unrecognized arguments: --all", *ATTACK, "--all"),
    analyze("nothing to analyse", "nothing to analyse", *CSV),
    analyze("an unknown study", "study/thesis", *CSV, "study=thesis"),
    analyze("a glob that matches nothing", "nothing matches", *CSV, "networks=none/*"),
    analyze("a section that is none", "tables", *CSV, f"networks={NET}", "sections=[tables]"),
    analyze("an attack run as a network", "only attack runs", *CSV, f"networks={MADE}"),
    analyze("an unfinished run", "none finished", *CSV, f"networks={HALF}"),
    analyze("batch_size=0", "batch_size", *CSV, f"networks={NET}", "batch_size=0"),
]
CONFIGS = [
    train("a negative lambda", "at least 0, got -1", *DIGITS, "weight_decay.value=-1"),
    train("a lambda in words", "at least 0, got 'much'", *DIGITS, "weight_decay.value=much"),
    train("nan as lambda", "weight_decay.value must be a finite number", *DIGITS, "weight_decay.value=nan"),
    train("two lambdas for three layers", "wants one number or a list of 3", *DIGITS, "weight_decay.value=[1,2]"),
    train("a normaliser of 0", "weight_decay.normaliser", *DIGITS, "weight_decay.normaliser=0"),
    train("a negative number of epochs", "trainer.max_epochs must be a whole", *DIGITS, "trainer.max_epochs=-3"),
    train("half an epoch", "trainer.max_epochs", *DIGITS, "trainer.max_epochs=2.5"),
    train("a negative seed", "seed must be a whole number", *DIGITS, "seed=-1"),
    train("a checkpoint to keep that is none", "unknown keep", *DIGITS, "keep=first"),
    train("batches of 0", "data.batch_size", *DIGITS, "data.batch_size=0"),
    train("more validation images than there are", "data.validation", *DIGITS, "data.validation=100000"),
    train("a layer of 0 units", "model.settings.widths", *DIGITS, "model.settings.widths=[0,3]"),
    train("a setting the network has not", "depth", *DIGITS, "+model.settings.depth=3"),
    train("a learning rate of nan", "optimizer.lr", *DIGITS, "optimizer.lr=nan"),
    train("a precision that is none", "trainer or callbacks: Precision 7 is invalid", *DIGITS, "trainer.precision=7"),
    train("a trainer option that is none", "speed", *DIGITS, "+trainer.speed=3"),
    train(
        "a callback that is none",
        "intriguing has no nothing",
        *DIGITS,
        "+callbacks.mine={_target_: intriguing.nothing}",
    ),
    analyze("study.limit in words", "study.limit must be a whole number", *CSV, "study=quickstart", "study.limit=some"),
    analyze(
        "a study with an unknown key", "study.colour is read by nothing", *MINE, make=study("limit: 4", "colour: 4")
    ),
    analyze("a study with an unknown attack", "attack/fgsm7", *MINE, make=study("attack=lbfgs", "attack=fgsm7")),
    analyze("a study whose seeds are no list", "study.seeds must be a list, got 3", *MINE, make=study("[0]", "3")),
    analyze("a study with a negative seed", "study.seeds must be a whole", *MINE, make=study("[0]", "[-1]")),
    analyze("a study that attacks no network", "names the networks", *MINE, make=study('["*"]', '["b*"]')),
    analyze(
        "a study with a wrong override", "trainer.epochs", *MINE, make=study("trainer.max_epochs", "trainer.epochs")
    ),
    analyze("a study that is no YAML", "mine.yaml", *MINE, make=study("seeds: [0]", "seeds: [0")),
]
FILES = [
    hostile("that is empty", "model.ckpt is empty", replaced(MODEL, b"")),
    hostile("that is cut in half", "model.ckpt", cut(MODEL)),
    attack(
        "a checkpoint that is cut in half, out of its folder",
        "a.ckpt is truncated or damaged",
        *CSV,
        "checkpoints=a.ckpt",
        make=moved(cut(MODEL), MODEL, "a.ckpt"),
    ),
    attack(
        "a checkpoint with one bit changed, out of its folder",
        "a.ckpt was changed or damaged",
        *CSV,
        "checkpoints=a.ckpt",
        make=moved(flipped(MODEL, 0.5), MODEL, "a.ckpt"),
    ),
    hostile("that is a folder", "matches no checkpoint", directory(MODEL)),
    hostile("that is a text", NOT_ONE, replaced(MODEL, b"not a network\n")),
    hostile("of another project", "foreign checkpoint", forged_archive(b"\x80\x02}.")),
    hostile("with one bit of a weight changed", "was changed or damaged", flipped(MODEL, 0.3)),
    hostile("with one bit of its directory changed", "was changed or damaged", flipped(MODEL, b"PK\1\2")),
    hostile(
        "of a newer version",
        "was written in format 4 (version 0.1.0 of the project); this version, 0.1.0, reads format 3",
        forged_checkpoint(lambda content: inner(content, "intriguing").update(format=4)),
    ),
    hostile(
        "of an unknown network",
        "unknown network 'FC7'",
        forged_checkpoint(lambda content: inner(content, "intriguing").update(model="FC7")),
    ),
    hostile(
        "of another architecture than its weights",
        "does not fit fully_connected of version 0.1.0",
        forged_checkpoint(lambda content: inner(content, "hyper_parameters").update(widths=[7, 5])),
    ),
    hostile(
        "with a weight that is nan",
        "network.1.weight are not all finite",
        forged_checkpoint(
            lambda content: inner(content, "state_dict")["network.1.weight"].view(-1)[3:4].fill_(torch.nan)
        ),
    ),
    train("a finished network with one bit changed", "model.ckpt was changed", *AGAIN, make=flipped(MODEL, 0.4)),
    train("metrics.csv of a finished run, changed", "metrics.csv was", *AGAIN, make=flipped(NET / "metrics.csv", 0.9)),
    train("the last checkpoint with one bit changed", "last.ckpt was changed", *RESUME, make=flipped(LAST, 0.7)),
    train("the last checkpoint cut off", "last.ckpt is truncated", *RESUME, make=cut(LAST, 0.9)),
    train("the last checkpoint empty", "last.ckpt is empty", *RESUME, make=replaced(LAST, b"")),
    train(
        "metrics.csv of an unfinished run that is no table",
        "metrics.csv is damaged",
        *RESUME,
        make=replaced(HALF / "metrics.csv", b"step,epoch\nx,1\n"),
        left=("runs/train/half/run.json",),  # which says what went wrong
    ),
    train(
        "a config.yaml of another run", "holds another config", *RESUME, make=replaced(HALF / "config.yaml", b"a: 1\n")
    ),
    attack("a finished set with one bit changed", "set.safetensors was", *AGAIN_ATTACK, make=flipped(SET, 0.8)),
    attack(
        "an amplified set of a damaged one",
        "set.safetensors was",
        *AGAIN_ATTACK[:-1],
        "name=made_amplify0.1",
        "attack.amplify=0.1",
        make=flipped(SET, 0.8),
    ),
    forged("with one bit changed", "set.safetensors was changed or damaged", flipped(SET, 0.6)),
    forged("that is cut in half", "set.safetensors", cut(SET)),
    forged("that is gone", "cannot read", lambda folder: (folder / SET).unlink()),
    forged(
        "of another version",
        "was written in format 7 (version 0.1.0 of the project); this version, 0.1.0, reads",
        forged_set(lambda tensors, entry: entry.update(format=7)),
    ),
    forged(
        "of images without colours",
        "inputs: expected shape (N, C, H, W)",
        set_tensor("inputs", lambda value: value.flatten(1)),
    ),
    forged(
        "of images in whole numbers", "inputs: expected torch.float32", set_tensor("inputs", lambda value: value.long())
    ),
    forged("with a pixel of 1.5", "inputs: expected pixels in [0, 1]", set_tensor("inputs", plus(2, 1.5))),
    forged("with a pixel that is nan", "inputs: expected finite pixels", set_tensor("inputs", plus(2, torch.nan))),
    forged("with a label of 12", "labels reach 12, but net has 10 classes", set_tensor("labels", plus(2, 12))),
    forged("with a negative label", "labels: expected values of at least 0", set_tensor("labels", plus(2, -4))),
    analyze(
        "a run.json that is no JSON", "run.json is no readable JSON", *ANALYZE, make=replaced(NET / "run.json", b"{")
    ),
    analyze("a run.json with one bit changed", "run.json", *ANALYZE, make=flipped(NET / "run.json", b"finished")),
    analyze(
        "a config.yaml changed by hand",
        "config.yaml was changed",
        *ANALYZE,
        make=replaced(NET / "config.yaml", b"seed: 1\n"),
    ),
    analyze("metrics.csv with one bit changed", "metrics.csv was", *ANALYZE, make=flipped(NET / "metrics.csv", 0.9)),
    train(
        "MNIST files that are others",
        "is not the published MNIST file",
        *CSV,
        "data=mnist",
        "data.root=mnist",
        make=mnist,
    ),
    train(
        "a folder without images",
        "neither train/ nor test/",
        *CSV,
        "data=image_folder",
        "data.folder=images",
        "data.root=.",
    ),
    train(
        "other classes in train than in test",
        "must have the same classes",
        *("logger=csv", "data=image_folder", "data.folder=images", "data.root=.", "data.size=8"),
        make=images(None, ("cat", "cow")),
    ),
    train(
        "an image that is a text",
        "train/cat/0.png is not an image that can be read",
        *("logger=csv", "data=image_folder", "data.folder=images", "data.root=.", "data.size=8", "name=fresh"),
        make=images(b"not an image"),
        left=(
            "runs/train/fresh",
            "runs/train/fresh/.lock",
            "runs/train/fresh/config.yaml",
            "runs/train/fresh/run.json",
        ),
    ),
]
HOSTILE = [
    hostile("that is a pickle which runs a command", NOT_ONE, replaced(MODEL, pickle.dumps(Payload()))),
    hostile("whose pickle runs a command", "asks for posix.system", forged_archive(pickle.dumps(Payload(), 2))),
    hostile("whose pickle hides the name", "STACK_GLOBAL", forged_archive(pickle.dumps(Payload(), 4))),
    hostile(
        "with a _target_ among its settings",
        "unexpected keyword argument '_target_'",
        forged_checkpoint(
            lambda c: inner(c, "hyper_parameters").update(_target_="os.system", command="touch executed")
        ),
    ),
    hostile(
        "whose settings name a file elsewhere",
        "ask for the weights ../../secret",
        forged_checkpoint(lambda content: inner(content, "hyper_parameters").update(OUTSIDE)),
    ),
    hostile(
        "whose data are said to lie elsewhere",
        "its data has root=../../x",
        forged_checkpoint(lambda content: inner(content, "intriguing", "data").update(root="../../x")),
    ),
    hostile(
        "whose layers are said to be huge",
        "does not fit",
        forged_checkpoint(lambda content: inner(content, "hyper_parameters").update(widths=[10**9, 10**9])),
    ),
    hostile(
        "whose images are said to be huge",
        "its images have the shape [1, 1000000, 1000000]",
        forged_checkpoint(lambda content: inner(content, "hyper_parameters").update(input_shape=[1, 10**6, 10**6])),
    ),
    hostile(
        "with a tensor of 10^12 numbers", "no checkpoint", forged_archive(tensor_of([10**12], [1], 10**12), four_bytes)
    ),
    hostile(
        "with one number as a tensor of 10^12",
        "a tensor of shape [1000000000000] is not all there",
        forged_archive(tensor_of([10**12], [0], 1), four_bytes),
    ),
    hostile(
        "with a tensor of negative size",
        "damaged",
        forged_archive(tensor_of([-5], [1], 1), four_bytes),
    ),
    hostile("that is a zip bomb", "an entry is compressed", forged_archive(tensor_of([4], [1], 4), bomb)),
    hostile("with two entries of one name", "two of its entries have one name", forged_archive(b"\x80\x02}.", twice)),
    hostile(
        "that is nested 100,000 deep",
        "nested deeper",
        forged_archive(b"\x80\x02}X\1\0\0\0a" + b"]" * 100_000 + b"a" * 99_999 + b"s."),
    ),
    train(
        "a last checkpoint that runs a command",
        "asks for posix.system",
        *RESUME,
        make=forged_archive(pickle.dumps(Payload(), 2), file=LAST),
    ),
    forged("whose header says 10^12 bytes", "its header claims more", raw_set(struct.pack("<Q", 10**12) + b"{}")),
    forged(
        "with a header of 2 MiB", "expected a header of at most", raw_set(struct.pack("<Q", 1 << 21) + b" " * (1 << 21))
    ),
    forged("whose header is nested 100,000 deep", "no adversarial set", raw_set(struct.pack("<Q", len(DEEP)) + DEEP)),
    forged("that is a pickle", "set.safetensors", raw_set(pickle.dumps(Payload()))),
    forged(
        "with Infinity in its metadata",
        "no adversarial set",
        forged_set(
            lambda tensors, entry: inner(entry, "metadata").update(seed="@"),
            lambda text: text.replace('"@"', "Infinity"),
        ),
    ),
    forged(
        "with a key twice in its metadata",
        "no adversarial set",
        forged_set(lambda tensors, entry: None, lambda text: text.replace('"format":1', '"format":1,"format":1')),
    ),
    forged(
        "with a seed in words",
        "expected seed as",
        forged_set(lambda tensors, entry: inner(entry, "metadata").update(seed="touch executed")),
    ),
    analyze(
        "a run.json with NaN in it",
        "no readable JSON",
        *ANALYZE,
        make=replaced(NET / "run.json", b'{"state": "finished", "seconds": NaN}'),
    ),
    analyze("a run.json nested 100,000 deep", "no readable JSON", *ANALYZE, make=replaced(NET / "run.json", DEEP)),
    train(
        "a run.json that names a file elsewhere",
        "leads outside the run folder",
        *AGAIN,
        make=forged_record(NET / "run.json", lambda info: inner(info, "artifacts").update({"../../x": "0" * 64})),
    ),
    train(
        "a run.json that names an absolute path",
        "leads outside the run folder",
        *AGAIN,
        make=forged_record(NET / "run.json", lambda info: inner(info, "artifacts").update({"/etc/hostname": "0" * 64})),
    ),
    analyze(
        "a run.json with a name elsewhere",
        "its stage or name is none",
        *ANALYZE,
        make=forged_record(NET / "run.json", lambda info: info.update(name="../../x")),
    ),
    analyze(
        "a model.ckpt that is a link out of its folder", "leads outside the run folder", *ANALYZE, make=linked(MODEL)
    ),
    analyze(
        "a config.yaml that runs a command",
        "config.yaml",
        *ANALYZE,
        make=replaced(NET / "config.yaml", b"!!python/object/apply:os.system ['touch executed']"),
    ),
    analyze(
        "a config.yaml that grows without end",
        "config.yaml",
        *ANALYZE,
        make=replaced(NET / "config.yaml", b"a: &a [1, 1]\nb: [*a, *a]\n"),
    ),
]
CASES = [*ARGUMENTS, *CONFIGS, *FILES, *HOSTILE]
