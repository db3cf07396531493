"""`python -m PedBoneSegLib` is the program `pedboneseg`."""

import sys

from .program.cli import main

if __name__ == "__main__":
    sys.exit(main())
