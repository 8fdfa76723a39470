"""The program inside a job: `python -m labrats.executor INPUTS` runs one attempt.

It reads its task from files in INPUTS, prepares the workspace, lets a provider do the work, and prints events, one
JSON object a line. It knows neither the engine nor a store, and needs no way to reach them.
"""
