"""The sections of the panel: setup, segment, review, correct, measure, save, batch; and training and model, under
Advanced."""
