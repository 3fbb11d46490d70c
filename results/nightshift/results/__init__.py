"""Reading results: rankings and their exports, calibration, evaluation, progress, reports."""
