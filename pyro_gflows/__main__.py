"""``python -m pyro_gflows`` is the command ``pyro-gflows``."""

import sys

from pyro_gflows.cli import main

if __name__ == "__main__":
    sys.exit(main())
