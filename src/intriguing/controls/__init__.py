"""Controls of the paper's claims: other classifiers, densities, random noise, and directions compared.

The functions take torch modules, or functions of images, and tensors; the sections of the analysis are made of them.
"""

from intriguing.controls.classifiers import CONTROLS, DIFFERENTIABLE, KernelMachine, fit_control
from intriguing.controls.densities import (
    DENSITIES,
    Density,
    MixtureDensity,
    NeighbourDensity,
    VariationalDensity,
    fit_density,
)
from intriguing.controls.directions import cosines, input_gradients
from intriguing.controls.noise import hit_probability, margins, noise_distance, noise_errors
from intriguing.controls.perturbations import shuffled, without_directions
from intriguing.controls.pockets import adversarial_dimension, aligned_directions, random_dimension, survival
from intriguing.controls.transfer import TransferCurve, transfer_curve

__all__ = [
    "CONTROLS",
    "DENSITIES",
    "DIFFERENTIABLE",
    "Density",
    "KernelMachine",
    "MixtureDensity",
    "NeighbourDensity",
    "TransferCurve",
    "VariationalDensity",
    "adversarial_dimension",
    "aligned_directions",
    "cosines",
    "fit_control",
    "fit_density",
    "hit_probability",
    "input_gradients",
    "margins",
    "noise_distance",
    "noise_errors",
    "random_dimension",
    "shuffled",
    "survival",
    "transfer_curve",
    "without_directions",
]
