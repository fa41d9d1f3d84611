"""Log the test error after every epoch; training does not depend on it."""

from __future__ import annotations

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from intriguing.data import ImageData
from intriguing.models import Classifier
from intriguing.nn import evaluating
from intriguing.nn.nonfinite import check_logits


class ErrorCurve(Callback):
    """Log ``curve/<subset>_error`` at the end of every epoch.

    Args:
        subset: name of a subset of the data.
        batch_size: images per forward pass.
    """

    def __init__(self, subset: str = "test", batch_size: int = 5000) -> None:
        self.subset, self.batch_size = subset, batch_size

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Count the wrong answers and log their share."""
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        assert isinstance(pl_module, Classifier)
        assert isinstance(data, ImageData)
        chosen, wrong = data.subset(self.subset), 0
        with evaluating(pl_module), trainer.precision_plugin.forward_context():
            for images, labels in chosen.batches(self.batch_size):
                images = trainer.precision_plugin.convert_input(images).to(pl_module.device)
                logits = pl_module(images)
                check_logits(pl_module, images, logits)
                wrong += int((logits.argmax(dim=1).cpu() != labels).sum())
        pl_module.log(f"curve/{self.subset}_error", wrong / len(chosen), rank_zero_only=True)
