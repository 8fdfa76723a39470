"""A real one-node Kubernetes cluster on this machine: etcd, API server, controllers, scheduler, kubelet, containerd."""
