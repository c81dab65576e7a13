"""Measurements of a kernel apart from any case: curves and thresholds for the report's chapters. They are no verdicts."""
