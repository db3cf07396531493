"""The runtime of PedBoneSeg: a volume goes in, labeled bones come out on its own grid.

It knows nothing of 3D Slicer and nothing of training. Importing this package imports no other; each room is
imported by its name.
"""

__version__ = "0.1.0"
