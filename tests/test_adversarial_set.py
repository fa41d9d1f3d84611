"""The contract between attack and analyze: what may be in a set, and that its file is trusted byte by byte."""

import hashlib
import json
import os
import pickle
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from intriguing.adversarial_set import MAX_HEADER, AdversarialSet
from intriguing.attacks import ATTACKS
from intriguing.errors import UserError
from intriguing.storage.files import file_sha256

METADATA = {
    "source": {"name": "fc10", "label": "FC10(1e-4)", "checkpoint_sha256": "0" * 64, "split": "full", "seed": 0},
    "data": {"name": "mnist", "subset": "test"},
    "attack": {"name": "lbfgs", "targets": "random", "c_start": 1e-2, "steps": (1, 2)},
    "amplify": None,
    "clip": True,
    "seed": 0,
    "study": "café",
    "version": "0.1.0",
}


def values(count: int = 5, shape: tuple[int, int, int] = (1, 3, 2), seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(count, *shape, generator=generator)
    success = torch.arange(count) % 3 != 1
    adv_inputs = torch.rand(count, *shape, generator=generator)
    adv_inputs[~success] = inputs[~success]
    distortion = (adv_inputs - inputs).flatten(1).square().mean(1).sqrt()
    distortion[~success] = torch.inf
    numbers = torch.arange(count)
    return {
        "inputs": inputs,
        "adv_inputs": adv_inputs,
        "labels": numbers % 10,
        "targets": numbers % 4 - 1,
        "indices": numbers * 7,
        "success": success,
        "distortion": distortion,
        "c": torch.where(success, 0.5, torch.nan),
        "num_forwards": numbers + 3,
        "num_backwards": numbers,
        "metadata": METADATA,
    }


def assert_equal(one: AdversarialSet, other: AdversarialSet) -> None:
    for name in values():
        if name == "metadata":
            assert one.metadata == other.metadata
        else:
            a, b = getattr(one, name), getattr(other, name)
            assert a.dtype == b.dtype
            assert torch.equal(torch.nan_to_num(a, nan=-7), torch.nan_to_num(b, nan=-7))


@pytest.mark.parametrize(("count", "shape"), [(0, (1, 28, 28)), (1, (1, 8, 8)), (5, (3, 2, 4)), (5000, (1, 8, 8))])
def test_round_trip_is_exact_and_the_file_is_a_function_of_the_set(tmp_path, count, shape):
    made = AdversarialSet(**values(count, shape))
    made.save(tmp_path / "a.safetensors")
    assert len(made) == count
    loaded = AdversarialSet.load(tmp_path / "a.safetensors")
    assert_equal(made, loaded)
    loaded.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_distortions_before_the_search_on_a_grid_are_kept_where_there_are_some(tmp_path):
    none = AdversarialSet(**values())
    made = AdversarialSet(**values(), unrounded_distortion=torch.tensor([0.1, torch.inf, 0.0, 2.0, 0.3]))
    for one, name in ((none, "none"), (made, "some")):
        one.save(tmp_path / name)
    loaded = AdversarialSet.load(tmp_path / "some")
    assert AdversarialSet.load(tmp_path / "none").unrounded_distortion is None
    assert loaded.unrounded_distortion is not None and made.unrounded_distortion is not None
    assert torch.equal(loaded.unrounded_distortion, made.unrounded_distortion)
    for wrong in (torch.tensor([0.1] * 4), torch.tensor([0.1, -1, 0, 0, 0]), torch.tensor([0.1, torch.nan, 0, 0, 0])):
        with pytest.raises(ValueError, match="unrounded_distortion: expected"):
            AdversarialSet(**values(), unrounded_distortion=wrong)


def test_the_file_is_plain_safetensors(tmp_path):
    made = AdversarialSet(**values())
    made.save(tmp_path / "set.safetensors")
    assert torch.equal(load_file(tmp_path / "set.safetensors")["adv_inputs"], made.adv_inputs)


def test_shared_and_strided_memory(tmp_path):
    given_values = values(6)
    images = torch.rand(2, 3, 6, 2).transpose(1, 3)[:1].expand(6, 2, 6, 3)
    none = {"success": torch.zeros(6, dtype=torch.bool), "distortion": torch.full((6,), torch.inf)}
    made = AdversarialSet(**{**given_values, **none, "inputs": images, "adv_inputs": images})
    made.save(tmp_path / "set.safetensors")
    assert torch.equal(AdversarialSet.load(tmp_path / "set.safetensors").adv_inputs, images)


def test_metadata_is_a_copy():
    made = AdversarialSet(**values())
    assert made.metadata is not METADATA
    assert made.metadata["attack"]["steps"] == [1, 2]


def changed(name: str, row: int, value: float) -> dict:
    given_values = values()
    given_values[name] = given_values[name].clone()
    given_values[name][row] = value
    return given_values


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({**values(), "inputs": values()["inputs"].flatten(1)}, r"inputs: expected shape \(N, C, H, W\), got \(5, 6\)"),
        ({**values(), "adv_inputs": values(4)["adv_inputs"]}, "adv_inputs: expected the shape of inputs"),
        ({**values(), "labels": torch.arange(4)}, r"labels: expected shape \(5,\), got \(4,\)"),
        ({**values(), "c": torch.zeros(5, 1)}, r"c: expected shape \(5,\), got \(5, 1\)"),
        (changed("labels", 0, -1), "labels: expected values of at least 0, got -1"),
        (changed("targets", 0, -2), "targets: expected values of at least -1, got -2"),
        (changed("inputs", 0, torch.nan), "inputs: expected finite pixels"),
        (changed("adv_inputs", 0, torch.inf), "adv_inputs: expected finite pixels"),
        (changed("inputs", 0, 1.5), r"inputs: expected pixels in \[0, 1\]"),
        (changed("adv_inputs", 0, -0.1), r"adv_inputs: expected pixels in \[0, 1\]"),
        (changed("success", 0, False), "expected finite exactly where success, got .* with success False in row 0"),
        (changed("distortion", 1, 0.5), "expected finite exactly where success, got 0.5 with success False in row 1"),
        (changed("distortion", 1, torch.nan), "got a negative or nan"),
        (changed("distortion", 3, 0.01), r"RMS of adv_inputs - inputs, .* got 0.01 in row 3"),
        (changed("adv_inputs", 1, 0.5), "expected the inputs in rows that failed"),
        (changed("c", 0, -torch.inf), "c: expected values of at least 0"),
        ({**values(), "metadata": {}}, "missing: source, data"),
        ({**values(), "metadata": {**METADATA, "data": "mnist"}}, "expected data as a mapping with a name"),
        ({**values(), "metadata": {**METADATA, "study": "x" * 2**20}}, "at most"),
    ],
)
def test_wrong_values(wrong, words):
    with pytest.raises(ValueError, match=words) as caught:
        AdversarialSet(**wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("inputs", values()["inputs"].double(), "inputs: expected torch.float32, got torch.float64"),
        ("success", torch.ones(5), "success: expected torch.bool"),
        ("labels", [1, 2], "labels: expected a tensor, got list"),
        ("metadata", None, "metadata: expected a dict"),
        ("metadata", {**METADATA, "seed": torch.tensor(1)}, "plain JSON"),
        ("metadata", {**METADATA, "seed": float("nan")}, "plain JSON"),
        ("metadata", {**METADATA, "clip": None}, "expected clip as .*bool"),
        ("metadata", {**METADATA, "source": "fc"}, "expected source as a mapping or None"),
    ],
)
def test_wrong_types(name, value, words):
    with pytest.raises(TypeError, match=words):
        AdversarialSet(**{**values(), name: value})


def test_unclipped_images_may_leave_the_box():
    given_values = changed("adv_inputs", 0, 3.0)
    given_values["distortion"][0] = (given_values["adv_inputs"][0] - given_values["inputs"][0]).square().mean().sqrt()
    made = AdversarialSet(**{**given_values, "metadata": {**METADATA, "clip": False}})
    assert float(made.adv_inputs.max()) == 3.0


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "set.safetensors"
    AdversarialSet(**values(2)).save(path)
    return path.read_bytes()


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        AdversarialSet.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_flipped_byte_is_found_at_every_place(tmp_path, whole):
    path = tmp_path / "set.safetensors"
    for position in range(len(whole)):
        refused(path, whole[:position] + bytes([whole[position] ^ (1 << position % 8)]) + whole[position + 1 :])
    # a space of the header's padding made a tab: the same JSON, and not the same file
    at = 8 + struct.unpack("<Q", whole[:8])[0] - 1
    if whole[at : at + 1] == b" ":
        assert "changed or damaged" in refused(path, whole[:at] + b"\t" + whole[at + 1 :])


@given(place=st.floats(0, 1, exclude_max=True), extra=st.binary(max_size=3))
def test_any_cut_or_lengthened_file_is_refused(tmp_path_factory, whole, place, extra):
    path = tmp_path_factory.getbasetemp() / "cut.safetensors"
    cut = whole[: int(place * len(whole))] + extra
    if cut != whole:  # the bytes that were added may be those that were cut off
        refused(path, cut)
    refused(path, whole + b"\0" + extra)


class Payload:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_foreign_files(tmp_path, monkeypatch, whole):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "set.safetensors"
    assert "is empty" in refused(path, b"")
    assert "has only 3 bytes" in refused(path, b"abc")
    refused(path, b"PK\x03\x04" + b"\0" * 100)
    refused(path, pickle.dumps(Payload()))
    torch.save({"a": torch.zeros(3)}, path)
    refused(path, path.read_bytes())
    assert not (tmp_path / "executed").exists()
    save_file({"a": torch.zeros(3)}, path)
    assert "no adversarial set of this project" in refused(path, path.read_bytes())
    assert "header of at most" in refused(path, struct.pack("<Q", MAX_HEADER + 1) + b" " * (MAX_HEADER + 1))
    assert "header claims more" in refused(path, struct.pack("<Q", 2**63) + whole[8:])
    refused(path, struct.pack("<Q", 60000) + b"[" * 60000)  # nested without end
    with pytest.raises(UserError, match="does not exist"):
        AdversarialSet.load(tmp_path / "missing")
    with pytest.raises(UserError, match="is no file"):
        AdversarialSet.load(tmp_path)


def resealed(content: bytes) -> bytes:
    """What a forger can do: the digest made right for the changed bytes."""
    place = list(re.finditer(rb'\\"sha256\\":\\"([0-9a-f]{64})', content))[-1].start(1)
    zeros = content[:place] + b"0" * 64 + content[place + 64 :]
    return content[:place] + hashlib.sha256(zeros).hexdigest().encode() + content[place + 64 :]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            rb"\"format\":1",
            rb"\"format\":2",
            r"in format 2 \(version 0.1.0 of the project\); this version, 0.1.0, reads format 1",
        ),
        (rb"\"metadata\":{", rb"\"metadota\":{", "metadata: expected a dict"),
        (rb"\"clip\":true", rb"\"clip\":null", "expected clip as .*bool"),
        (b'"c":{', b'"d":{', "its tensors differ in c, d"),
        (b'"F32","shape":[2,1,3,2]', b'"I32","shape":[2,1,3,2]', "expected torch.float32, got torch.int32"),
        (b'"data_offsets":[0,', b'"data_offsets":[9,', "damaged or no adversarial set"),
        (b'"dtype":"BOOL"', b'"dtype":"XXXX"', "damaged or no adversarial set"),
    ],
)
def test_a_forged_file_is_one_line_too(tmp_path, whole, old, new, words):
    assert old in whole
    assert re.search(words, refused(tmp_path / "set.safetensors", resealed(whole.replace(old, new, 1))))
    assert resealed(whole) == whole


FULL_THEN_KILLED = """
import os, resource, signal, sys
from intriguing import adversarial_set
from intriguing.storage import files
from intriguing.errors import UserError
path = sys.argv[1]
made = adversarial_set.AdversarialSet.load(path)
before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # a write beyond it fails, as on a full disk
try:
    made.save(path)
except UserError as error:
    print(error, os.listdir(os.path.dirname(path)), flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
def die(old, new):
    os.kill(os.getpid(), signal.SIGKILL)
files.os.replace = die
made.save(path)
"""


def test_a_failed_or_killed_save_leaves_the_old_file(tmp_path, whole):
    path = tmp_path / "set.safetensors"
    path.write_bytes(whole)
    command = [sys.executable, "-c", FULL_THEN_KILLED, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "cannot write" in done.stdout
    assert "['set.safetensors']" in done.stdout  # no litter after the failure
    assert (done.stderr, done.returncode) == ("", -signal.SIGKILL)
    assert path.read_bytes() == whole
    assert len(list(tmp_path.glob(".set.safetensors.*.tmp"))) == 1


def test_no_folder_to_save_in(tmp_path):
    with pytest.raises(UserError, match="cannot write"):
        AdversarialSet(**values()).save(tmp_path / "missing" / "set.safetensors")


def test_the_digest_is_not_confused_by_digests_in_the_metadata(tmp_path):
    metadata = {**METADATA, "zz": {"sha256": "0" * 64}, "study": json.dumps({"sha256": "f" * 64})}
    made = AdversarialSet(**{**values(), "metadata": metadata})
    made.save(tmp_path / "set.safetensors")
    assert AdversarialSet.load(tmp_path / "set.safetensors").metadata == made.metadata


@pytest.mark.parametrize("name", ATTACKS)
def test_a_set_is_made_of_the_result_of_any_attack(tmp_path, name):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    inputs = torch.rand(5, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    labels = model(inputs).argmax(1)
    quick = {"lbfgs": {"search_steps": 5}, "adam_l1": {"num_steps": 5}, "nearest": {}, "gaussian": {"stddev": 0.1}}
    metadata = {**METADATA, "clip": name != "gaussian"}
    result = ATTACKS[name](model, inputs, labels, generator=torch.Generator().manual_seed(0), **quick[name])
    made = AdversarialSet.from_result(result, inputs, labels, metadata=metadata)
    made.save(tmp_path / "set.safetensors")
    found = AdversarialSet.load(tmp_path / "set.safetensors", sha256=file_sha256(tmp_path / "set.safetensors"))
    for column in ("adv_inputs", "success", "distortion", "num_forwards", "num_backwards"):
        assert torch.equal(getattr(found, column), getattr(result, column))
    assert found.c.isnan().all() if result.c is None else torch.equal(found.c, result.c)
    assert found.indices.tolist() == list(range(5)) and found.targets.tolist() == [-1] * 5
    given = AdversarialSet.from_result(
        result, inputs, labels, metadata=metadata, indices=torch.arange(5) + 7, targets=labels + 1
    )
    assert given.indices.tolist() == [7, 8, 9, 10, 11] and torch.equal(given.targets, labels + 1)
    with pytest.raises(UserError, match="was changed or damaged since its run wrote it"):
        AdversarialSet.load(tmp_path / "set.safetensors", sha256="0" * 64)
