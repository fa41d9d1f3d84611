"""Networks. Every module of this package may define an architecture: a subclass of ``Classifier`` with a name."""

import importlib
import pkgutil

from intriguing.models.alexnet import AlexNet
from intriguing.models.classifier import CHECKPOINT_FORMAT, PENALTIES, REGISTRY, Classifier
from intriguing.models.contractive_autoencoder import ContractiveAutoencoder
from intriguing.models.convnet import ConvNet
from intriguing.models.efficientnet_lite import EfficientNetLite
from intriguing.models.fit_size import planned_steps
from intriguing.models.fully_connected import FullyConnected
from intriguing.models.module import ModuleClassifier
from intriguing.models.normalize import Normalize
from intriguing.models.optimization import Scheduler
from intriguing.models.program import ProgramClassifier
from intriguing.models.quocnet import QuocNet
from intriguing.models.sparse_autoencoder import SparseAutoencoder
from intriguing.models.torchvision_model import TorchvisionModel
from intriguing.models.variational_autoencoder import VariationalAutoencoder

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")  # a new file registers its architecture by this alone

__all__ = [
    "CHECKPOINT_FORMAT",
    "PENALTIES",
    "REGISTRY",
    "AlexNet",
    "Classifier",
    "ContractiveAutoencoder",
    "ConvNet",
    "EfficientNetLite",
    "FullyConnected",
    "ModuleClassifier",
    "Normalize",
    "ProgramClassifier",
    "QuocNet",
    "Scheduler",
    "SparseAutoencoder",
    "TorchvisionModel",
    "VariationalAutoencoder",
    "planned_steps",
]
