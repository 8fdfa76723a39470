"""The seed of all random choices in a test run, the same in all workers. Set LABRATS_SEED to repeat a run."""

import os
import random
from typing import Final

SEED: Final = int(os.environ.setdefault("LABRATS_SEED", str(random.randrange(1_000_000))))
