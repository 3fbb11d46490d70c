"""Pure maths on numpy arrays: prompts, tie-break, fusion, calibration, metrics, mixing."""

from nightshift.scoring.calibration import CalibrationStats, observe_query
from nightshift.scoring.fusion import fuse, probability
from nightshift.scoring.methods.registry import FRAMINGS, METHODS, framing, framings_of
from nightshift.scoring.metrics import evaluate
from nightshift.scoring.mixing import mix_item, mix_query
from nightshift.scoring.prompts import Content, Framing, ImageRef
from nightshift.scoring.tie_break import Placement, break_ties

__all__ = [
    "FRAMINGS",
    "METHODS",
    "CalibrationStats",
    "Content",
    "Framing",
    "ImageRef",
    "Placement",
    "break_ties",
    "evaluate",
    "framing",
    "framings_of",
    "fuse",
    "mix_item",
    "mix_query",
    "observe_query",
    "probability",
]
