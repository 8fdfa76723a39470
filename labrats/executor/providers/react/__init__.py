"""A ReAct loop: the model is asked, calls tools, and reads their results until it has finished.

`loop.py` asks and acts, `tool_call_formats.py` writes and parses calls, `transcript.py` selects the part of the
conversation that the model sees, `tools.py` holds the tools, and `repetition.py` detects a lack of progress.
"""
