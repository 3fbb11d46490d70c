"""Pure maths on numpy arrays: prompts, tie-break, fusion, calibration, metrics, mixing."""

from nightshift.scoring.calibration import CalibrationStats, observe_query
from nightshift.scoring.framings import FRAMINGS, framing
from nightshift.scoring.fusion import fuse, probability
from nightshift.scoring.metrics import evaluate
from nightshift.scoring.mixing import mix_item, mix_query
from nightshift.scoring.prompts import Content, Framing, ImageRef
from nightshift.scoring.tie_break import Placement, break_ties

__all__ = [
    "FRAMINGS",
    "CalibrationStats",
    "Content",
    "Framing",
    "ImageRef",
    "Placement",
    "break_ties",
    "evaluate",
    "framing",
    "fuse",
    "mix_item",
    "mix_query",
    "observe_query",
    "probability",
]
