"""`python -m labrats.executor INPUTS [SCRATCH]`: run one attempt in this process.

INPUTS holds `job.json`, `prompt` and `secrets/`. With SCRATCH, a folder of which nothing is kept, INPUTS may be
read-only, and standard output carries everything. Without it the attempt writes to INPUTS too.
"""

import sys
from pathlib import Path

from labrats.executor.attempt import execute

if len(sys.argv) not in (2, 3):
    sys.exit("usage: python -m labrats.executor INPUTS [SCRATCH]")
sys.exit(execute(*(Path(argument) for argument in sys.argv[1:])))
