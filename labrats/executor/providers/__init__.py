"""One module per provider, the parsers of their output, and the registry that names them."""
