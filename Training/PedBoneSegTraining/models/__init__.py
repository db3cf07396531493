"""From a finished run to a model: export with its calibration and reference exams, and adapting a model."""
