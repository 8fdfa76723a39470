"""Decides what happens to jobs, and does it: `plan.py` and `queue.py` decide without I/O, `reconcile.py` acts."""
