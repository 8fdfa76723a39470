"""The backends, which implement the ports. They do not import each other, and only labrats/compose.py names them."""
