"""Trainings of the encoder that come before the segmentation, one file for each.

`configuration.extensions.Pretraining` is their contract.
"""
