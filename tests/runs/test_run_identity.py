"""Every key of the composed config decides which run it is, but for a declared list."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intriguing.runs.identity import NOT_IDENTITY, canonical, identity_of

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner),
    max_leaves=5,
)


def _keys(config: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _changed(config: dict[str, Any], key: str) -> dict[str, Any]:
    changed = copy.deepcopy(config)
    *sections, last = key.split(".")
    where = changed
    for section in sections:
        where = where[section]
    where[last] = "something else" if where[last] != "something else" else None
    return changed


@pytest.mark.parametrize("stage", ["train", "attack", "analyze"])
def test_every_key_counts_but_those_of_the_list(composed: Callable[..., dict], stage: str) -> None:
    more = {"train": ["callbacks=back_feeding", "debug=profile", "trainer=ddp"], "attack": [], "analyze": []}
    config = composed(stage, *more[stage])
    config["nobody"] = {"thought": {"of": 1}}
    whole = canonical(identity_of(config, stage))
    left_out, counted = 0, 0
    for key in _keys(config):
        listed = any(f"{key}.".startswith(f"{one}.") for one in NOT_IDENTITY[stage])
        same = canonical(identity_of(_changed(config, key), stage)) == whole
        assert same == listed, key
        left_out, counted = left_out + listed, counted + (not listed)
    assert left_out > 8 and counted > 5
    assert identity_of(config, stage)["nobody"] == {"thought": {"of": 1}}


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(["seed", "keep", "anything", "x"]), PLAIN, min_size=1), PLAIN)
def test_a_key_that_is_not_listed_comes_back_as_it_was(config: dict[str, Any], unlisted: Any) -> None:
    assert identity_of({**config, "runs": unlisted, "logger": {"wandb": unlisted}}, "train") == config


def test_keys_become_texts_and_nothing_of_the_config_is_changed() -> None:
    config = {"callbacks": {"swa": {"scheduling": {4: 2}}}, "trainer": {"devices": 2}}
    kept = copy.deepcopy(config)
    assert identity_of(config, "train") == {"callbacks": {"swa": {"scheduling": {"4": 2}}}}
    assert config == kept
