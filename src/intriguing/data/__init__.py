"""Images, in memory or in folders, and the Lightning DataModule over them."""

from intriguing.data.arrays import SHAPES, ImageArrays, Mnist
from intriguing.data.classes import class_number
from intriguing.data.datasets import DatasetPair, from_datasets, from_given
from intriguing.data.folders import ImageFolders
from intriguing.data.module import BatchIndices, ImageData
from intriguing.data.opening import digits, from_tensors, image_folder, mnist
from intriguing.data.settings import (
    FOLDERS,
    IMAGENET_SIZE,
    OwnData,
    blank_settings,
    check_given,
    check_typed,
    folder_name,
    folder_settings,
    images_of_network,
    open_images,
    target_of,
)
from intriguing.data.subsets import DATA_NAMES, SPLIT_NAMES, SUBSETS, DataSet, ImageSubset, Subset, half_indices

__all__ = [
    "DATA_NAMES",
    "FOLDERS",
    "IMAGENET_SIZE",
    "SHAPES",
    "SPLIT_NAMES",
    "SUBSETS",
    "BatchIndices",
    "DataSet",
    "DatasetPair",
    "ImageArrays",
    "ImageData",
    "ImageFolders",
    "ImageSubset",
    "Mnist",
    "OwnData",
    "Subset",
    "blank_settings",
    "check_given",
    "check_typed",
    "class_number",
    "digits",
    "folder_name",
    "folder_settings",
    "from_datasets",
    "from_given",
    "from_tensors",
    "half_indices",
    "image_folder",
    "images_of_network",
    "mnist",
    "open_images",
    "target_of",
]
