"""Shapes of requests and answers that several routes share, and their conversion to the engine's types."""
