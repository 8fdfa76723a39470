"""Tests of the Helm chart: rendering, refused values, and an installation on a real cluster."""
