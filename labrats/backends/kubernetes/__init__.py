"""The engine on Kubernetes. Only what the ports promise lives here."""
