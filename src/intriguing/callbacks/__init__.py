"""Lightning callbacks of the project: back-feeding, and the curve of an error over training."""

from intriguing.callbacks.back_feeding import BackFeeding
from intriguing.callbacks.error_curve import ErrorCurve
from intriguing.callbacks.feed import Feed, FeedSettings, LayerPool
from intriguing.callbacks.pool import Pool

__all__ = ["BackFeeding", "ErrorCurve", "Feed", "FeedSettings", "LayerPool", "Pool"]
