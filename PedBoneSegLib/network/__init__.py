"""The networks: one family in plain torch behind one configuration. Each module is imported by its name.

`config` says what a network is (no torch); `segmenter` builds and runs it; `fold` turns it, for one domain, into a
plain network for inference. Beneath lie `dsbn` (normalization by domain), the encoders `unet` and `efficientnet`,
the `decoder` and the `heads`.
"""
