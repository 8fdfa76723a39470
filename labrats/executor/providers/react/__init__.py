"""A ReAct loop: it asks the model, executes the tool calls in the answer, returns their results, and asks again.

`loop.py` runs the loop, `tool_call_formats.py` renders the conversation and parses calls, `transcript.py` selects the
turns that fit the model's window, `tools.py` has the tools, and `repetition.py` detects a model that makes no progress.
"""
