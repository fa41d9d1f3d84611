"""Images, in memory or in folders, and the Lightning DataModule over them."""

from intriguing.data.arrays import SHAPES, ImageArrays, fetch_mnist, load_arrays
from intriguing.data.module import BatchIndices, ImageData, check_given, check_typed, images_of_network
from intriguing.data.subsets import DATA_NAMES, SPLIT_NAMES, SUBSETS, Subset, half_indices

__all__ = [
    "DATA_NAMES",
    "SHAPES",
    "SPLIT_NAMES",
    "SUBSETS",
    "BatchIndices",
    "ImageArrays",
    "ImageData",
    "Subset",
    "check_given",
    "check_typed",
    "fetch_mnist",
    "half_indices",
    "images_of_network",
    "load_arrays",
]
