"""Files and generators -> one dataset -> batches inside jit."""

from jaxdiff.data.dataset import Dataset, DatasetInfo, sample_batch, to_device
from jaxdiff.data.joining import join
from jaxdiff.data.normaliser import NORMALISERS, Normaliser, blank_normaliser, check_normaliser, fit_normaliser
from jaxdiff.data.reference import normalised_score, reference_scores
from jaxdiff.data.reweight import reweight
from jaxdiff.data.segments import (
    PADDINGS,
    Segment,
    Segments,
    check_padding,
    check_segment,
    returns_to_go,
    sample_segments,
)
from jaxdiff.data.sources import load
from jaxdiff.data.windows import Window, Windows, sample_windows

__all__ = [
    "NORMALISERS",
    "PADDINGS",
    "Dataset",
    "DatasetInfo",
    "Normaliser",
    "Segment",
    "Segments",
    "Window",
    "Windows",
    "blank_normaliser",
    "check_normaliser",
    "check_padding",
    "check_segment",
    "fit_normaliser",
    "join",
    "load",
    "normalised_score",
    "reference_scores",
    "returns_to_go",
    "reweight",
    "sample_batch",
    "sample_segments",
    "sample_windows",
    "to_device",
]
