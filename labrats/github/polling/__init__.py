"""Webhook sources in the mode `poll`: their events are read from GitHub's API, so that no webhook must reach here."""
