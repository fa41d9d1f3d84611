"""Provide Lightning callbacks: back-feeding, and the curve of an error over training."""

from intriguing.callbacks.back_feeding import BackFeeding
from intriguing.callbacks.error_curve import ErrorCurve
from intriguing.callbacks.pool import Pool
from intriguing.callbacks.pool_mixing import LayerPool, PoolMixing, PoolSettings

__all__ = ["BackFeeding", "ErrorCurve", "LayerPool", "Pool", "PoolMixing", "PoolSettings"]
