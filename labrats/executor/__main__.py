"""`python -m labrats.executor FOLDER`: run one attempt in this process."""

import sys
from pathlib import Path

from labrats.executor.attempt import execute

if len(sys.argv) != 2:
    sys.exit("usage: python -m labrats.executor FOLDER")
sys.exit(execute(Path(sys.argv[1])))
