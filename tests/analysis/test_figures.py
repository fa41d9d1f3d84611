import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

from intriguing.analysis import analyze


@pytest.fixture
def result(network, crafted):
    nets = [
        network("FC10(1e-4)", 0, confused=[9]),
        network("FC10(1)", 1, weight_decay=[1.0]),
        network("FC200-200-10", 2, weight_decay=[1e-5, 1e-5, 1e-6]),
        network("FC100-100-10", 3, split="p1", weight_decay=[1e-5]),
    ]
    sets = [crafted(net, {i: 40}, subset="train" if i < 3 else "test") for i, net in enumerate(nets)]
    sets.append(crafted(None, {0: 4}, attack={"name": "gaussian", "stddev": 0.1}))
    return lambda **more: analyze(nets, sets, title="figures", **more)


def test_every_figure_is_a_small_picture(result):
    figures = result().figures
    assert [f.key.split("_")[0] for f in figures] == [
        *("agreement", "lambda", "figure7", "distortions"),
        *["examples"] * 4,
    ]
    for figure in figures:
        image = Image.open(io.BytesIO(figure.png))
        assert min(image.size) > 150, figure.key
        assert len(figure.png) < 150_000, figure.key
        assert np.asarray(image.convert("L")).std() > 5, figure.key
        assert figure.runs
        assert figure.alt


def test_drawings_follow_the_pages_colours(result):
    for figure in result(sections=["agreement", "lambda", "distortions", "table1"]).figures:
        assert figure.svg is not None
        assert figure.svg.startswith("<svg")
        assert "var(--ink" in figure.svg
        assert "<metadata>" not in figure.svg


def test_the_same_inputs_give_the_same_bytes_and_leave_the_settings_of_matplotlib_as_they_were(result):
    before = dict(matplotlib.rcParams)
    first = result()
    assert dict(matplotlib.rcParams) == before
    assert first == result()


def test_figure_7_tells_the_measured_accuracy_under_noise(result):
    caption = result(sections=["figure7"]).figure("figure7").caption
    assert "N = 40" in caption
    assert "FC10(1e-4)" in caption
    assert "51 %" in caption
    assert "is right on 0 %" in caption


def test_progress_is_told_for_every_set(result):
    told = []
    result(sections=["table2"], progress=lambda what, done, total: told.append((done, total)))
    assert told == [(1, 1)] * 5
