"""`python -m PedBoneSegTraining VERB …`"""

import sys

from PedBoneSegLib.program.interrupts import end_on_signals, ignore_signals

from .program.commands import main

if __name__ == "__main__":
    end_on_signals()
    code = main()
    ignore_signals()
    sys.exit(code)
