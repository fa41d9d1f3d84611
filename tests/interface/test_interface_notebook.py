"""The notebook of the documentation, word for word; what it shows is short."""

from __future__ import annotations

from torch import nn

import intriguing as ig

FIT = """
import intriguing as ig
model = ig.fit(ig.models.FullyConnected(widths=[100, 100]), ig.data.digits(), weight_decay=1e-5, epochs=30)
"""
TABLE = """
sets  = {name: ig.craft(net, images, labels, attack="nearest") for name, net in nets.items()}
table = ig.transfer_table(nets, sets); table.to_frame()            # tables and figures show themselves (_repr_html_, _repr_png_)
"""  # noqa: E501


def test_the_notebook_runs_word_for_word() -> None:
    cell: dict = {}
    exec(FIT, cell)
    test = ig.data.digits().test
    model = cell["model"]
    wrong = float((model(test.images).argmax(1) != test.labels).double().mean())
    assert model.label == "FC100-100-10" and wrong < 0.06
    small = ig.fit(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), ig.data.digits(), epochs=3, label="mine")
    cell |= {"nets": {"FC100-100-10": model, "mine": small}, "images": test.images[:50], "labels": test.labels[:50]}
    exec(TABLE, cell)
    table = cell["table"]
    assert table.rows == ("FC100-100-10", "mine", "unperturbed images")
    for name in cell["nets"]:
        assert (table.cells[name, name].k, table.cells[name, name].n) == (50, 50)
    frame = table.to_frame()
    assert len(frame) == 8 and set(frame["quantity"]) == {"error", "distortion"}
    assert "FC100-100-10" in table._repr_html_()
