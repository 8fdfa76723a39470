"""The events of GitHub that ask the engine for something, and those that it caused itself."""
