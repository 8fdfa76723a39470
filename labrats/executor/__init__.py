"""The program inside a job: `python -m labrats.executor INPUTS` runs one attempt.

It reads its inputs from files in INPUTS, prepares the workspace, runs a provider, and prints events, one JSON object
per line. It depends on neither the engine nor a store, and needs no connection to them.
"""
