"""From a volume to labels: slices, the network's passes over them, clean-up, doubt, and which joint it is."""
