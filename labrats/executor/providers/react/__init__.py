"""A model at work in the workspace: it is asked, it calls tools, it is told what they answered, until it is done.

`loop.py` asks and acts. `manners.py` says how calls are written and read, `transcript.py` what of the talk the model
still sees, `tools.py` what it can do, and `repetition.py` when it goes round in circles.
"""
