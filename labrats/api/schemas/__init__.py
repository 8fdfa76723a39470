"""Models of requests and responses that several routes share, and their conversion to the engine's types."""
