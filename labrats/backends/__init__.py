"""Implementations of the ports: `embedded` and `kubernetes`. Only main.py names one of them."""
