"""What is left to chance in a run of the tests, all its workers included: LABRATS_SEED gives the same again."""

import os
import random
from typing import Final

SEED: Final = int(os.environ.setdefault("LABRATS_SEED", str(random.randrange(1_000_000))))
