"""The Kubernetes manifests of an installation. The custom resource definitions are generated from the models."""
