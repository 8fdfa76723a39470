"""Outgoing requests: the address policy, the HTTP client, webhook signatures and GitHub's API."""
