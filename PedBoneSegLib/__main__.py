"""`python -m PedBoneSegLib` is the program `pedboneseg`."""

import sys

from .program.interrupts import end_on_signals, end_with_parent, ignore_signals


def main() -> int:
    end_on_signals()  # before the program itself is loaded, which takes a moment in which a signal may come
    end_with_parent()
    from .program.cli import main as program

    try:
        return program()
    finally:
        ignore_signals()


if __name__ == "__main__":
    sys.exit(main())
