"""The Kubernetes backend: the ports implemented with custom resources, Jobs and pods."""
