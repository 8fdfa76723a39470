"""The proxy between the agent of one attempt and the server of its model, which keeps the model's key from the agent.

The agent has a base URL on loopback and a token, which is valid for this proxy only and ends with the attempt. The
proxy replaces the token with the key, forwards requests for the job's models, measures their usage, and reports them.
"""
