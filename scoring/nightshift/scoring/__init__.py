"""Maths on numpy arrays: prompts, tie-break, fusion, calibration, metrics, mixing of vectors."""
