"""GitHub behind the port `Forge`: its API, the reports that the engine writes there, the requests that it answers."""
