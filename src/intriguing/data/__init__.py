"""Images, in memory or in folders, and the Lightning DataModule over them."""

from intriguing.data.arrays import SHAPES, ImageArrays, Mnist, digits
from intriguing.data.folders import ImageFolders, image_folder
from intriguing.data.module import BatchIndices, ImageData
from intriguing.data.settings import (
    blank_settings,
    check_given,
    check_typed,
    folder_name,
    folder_settings,
    images_of_network,
    open_images,
)
from intriguing.data.subsets import DATA_NAMES, SPLIT_NAMES, SUBSETS, DataSet, ImageSubset, Subset, half_indices

__all__ = [
    "DATA_NAMES",
    "SHAPES",
    "SPLIT_NAMES",
    "SUBSETS",
    "BatchIndices",
    "DataSet",
    "ImageArrays",
    "ImageData",
    "ImageFolders",
    "ImageSubset",
    "Mnist",
    "Subset",
    "blank_settings",
    "check_given",
    "check_typed",
    "digits",
    "folder_name",
    "folder_settings",
    "half_indices",
    "image_folder",
    "images_of_network",
    "open_images",
]
