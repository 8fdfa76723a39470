"""Benchmarks of the engine, measured from outside and compared with a raw loop of the same work.

`python -m benchmarks` prints a table. docs/benchmarks.md explains how each number is measured.
"""
