"""What the Flex Template's launcher runs: the command, from the installed packages.

A file of its own, and alone in its folder: Python puts the folder of what it runs in front of all packages.
"""

import sys

from pipeline.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
