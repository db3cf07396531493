"""`python -m PedBoneSegTraining VERB …`"""

import sys

from .program.commands import main

if __name__ == "__main__":
    sys.exit(main())
