"""The engine on a real cluster."""
