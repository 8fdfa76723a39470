"""Volumes of the test cluster."""

from labrats.backends.kubernetes.client import ApiClient
from labrats.model.record import encode


async def bind_volume(client: ApiClient, namespace: str, claim: str, folder: str) -> None:
    """Create a volume claim that mounts a folder of this machine into pods."""
    volume = {
        "metadata": {"name": f"{namespace}-{claim}"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany"],
            "hostPath": {"path": folder, "type": "DirectoryOrCreate"},
            "claimRef": {"namespace": namespace, "name": claim},
            "storageClassName": "",
        },
    }
    volume_claim = {
        "metadata": {"name": claim},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "",
            "volumeName": f"{namespace}-{claim}",
        },
    }
    await client.request("POST", "/api/v1/persistentvolumes", encode(volume))
    await client.request("POST", f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", encode(volume_claim))
