"""What a voxel of a synthetic joint can be made of."""

from enum import IntEnum


class Tissue(IntEnum):
    """Values of `Anatomy.tissue`. Stored in files: add at the end, never renumber."""

    AIR = 0
    SKIN = 1
    FAT = 2
    FASCIA = 3  # deep fascia, septa between muscles, strands in subcutaneous fat
    MUSCLE = 4
    VESSEL = 5
    NERVE = 6
    TENDON = 7
    LIGAMENT = 8
    MENISCUS = 9  # meniscus or labrum: fibrocartilage
    FLUID = 10
    CARTILAGE = 11  # articular cartilage
    UNOSSIFIED = 12  # the part of a child's bone that is still cartilage
    CORTEX = 13
    MARROW = 14  # yellow
    MARROW_RED = 15
    PLATE = 16  # open growth plate, a part of the bone
    LUNG = 17
    NODE = 18  # lymph node
    MASS = 19  # a tumor or another lump in the soft tissue
    INTERMUSCULAR = 20  # fat streaks inside a muscle, between its bundles
    ORGAN = 21  # contents of the pelvis or the chest


BONE_TISSUES = (Tissue.CORTEX, Tissue.MARROW, Tissue.MARROW_RED, Tissue.PLATE)
