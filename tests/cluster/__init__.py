"""A real one-node Kubernetes on this machine: etcd, API server, controllers, scheduler, kubelet on containerd."""
