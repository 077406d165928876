"""Files and generators -> one dataset -> batches inside jit."""

from jaxdiff.data.dataset import Dataset, DatasetInfo, sample_batch, to_device
from jaxdiff.data.reference import normalised_score, reference_scores
from jaxdiff.data.sources import load

__all__ = ["Dataset", "DatasetInfo", "load", "normalised_score", "reference_scores", "sample_batch", "to_device"]
