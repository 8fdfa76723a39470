"""What the engine costs, measured from outside, beside a raw loop of the same work on the same machine.

`python -m benchmarks` prints one table. docs/benchmarks.md says how each number is taken.
"""
