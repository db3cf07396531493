"""The terms of the loss, one file for each. `configuration.extensions` has their contract, and an example."""
