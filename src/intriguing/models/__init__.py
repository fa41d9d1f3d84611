"""The networks. A checkpoint names its network, and only a name of this registry is ever built."""

from intriguing.models.alexnet import AlexNet
from intriguing.models.classifier import CHECKPOINT_FORMAT, PENALTIES, Classifier, planned_steps
from intriguing.models.convnet import ConvNet
from intriguing.models.fully_connected import FullyConnected
from intriguing.models.sparse_autoencoder import SparseAutoencoder
from intriguing.models.torchvision_model import TorchvisionModel

REGISTRY: dict[str, type[Classifier]] = {
    cls.name: cls for cls in (FullyConnected, SparseAutoencoder, ConvNet, TorchvisionModel, AlexNet)
}

__all__ = [
    "CHECKPOINT_FORMAT",
    "PENALTIES",
    "REGISTRY",
    "AlexNet",
    "Classifier",
    "ConvNet",
    "FullyConnected",
    "SparseAutoencoder",
    "TorchvisionModel",
    "planned_steps",
]
