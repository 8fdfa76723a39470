"""The controller of jobs: `schedule.py`, `plan.py` and `queue.py` decide without I/O, `reconcile.py` acts."""
