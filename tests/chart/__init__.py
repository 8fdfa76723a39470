"""The Helm chart: what it renders to, what it refuses, and what an installation of it does on a real cluster."""
