"""The providers: one module for each way to run an agent or a model. `registry.py` lists them."""
