"""The calls of the CRI by which a kubelet runs pods, as far as the lab needs them.

Field numbers are those of kubernetes/cri-api, pkg/apis/runtime/v1/api.proto.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc

from ram_ebpf.scopes.cri_messages import MAP, PACKAGE, SERVICE, declare

_PATIENCE = 20.0

MESSAGES = declare(
    {
        "VersionRequest": {},
        "VersionResponse": {"runtime_name": (2, "string")},
        "ImageSpec": {"image": (1, "string")},
        "PullImageRequest": {"image": (1, "ImageSpec")},
        "PullImageResponse": {"image_ref": (1, "string")},
        "PodSandboxMetadata": {"name": (1, "string"), "uid": (2, "string"), "namespace": (3, "string")},
        "NamespaceOption": {"network": (1, "int32")},
        "LinuxSandboxSecurityContext": {"namespace_options": (1, "NamespaceOption")},
        "LinuxPodSandboxConfig": {
            "security_context": (2, "LinuxSandboxSecurityContext"),
        },
        "PodSandboxConfig": {
            "metadata": (1, "PodSandboxMetadata"),
            "labels": (6, MAP),
            "linux": (8, "LinuxPodSandboxConfig"),
        },
        "RunPodSandboxRequest": {"config": (1, "PodSandboxConfig")},
        "RunPodSandboxResponse": {"pod_sandbox_id": (1, "string")},
        "StopPodSandboxRequest": {"pod_sandbox_id": (1, "string")},
        "StopPodSandboxResponse": {},
        "RemovePodSandboxRequest": {"pod_sandbox_id": (1, "string")},
        "RemovePodSandboxResponse": {},
        "ContainerMetadata": {"name": (1, "string"), "attempt": (2, "uint32")},
        "LinuxContainerSecurityContext": {"namespace_options": (3, "NamespaceOption")},
        "LinuxContainerConfig": {"security_context": (2, "LinuxContainerSecurityContext")},
        "ContainerConfig": {
            "metadata": (1, "ContainerMetadata"),
            "image": (2, "ImageSpec"),
            "command": (3, "*string"),
            "labels": (9, MAP),
            "linux": (15, "LinuxContainerConfig"),
        },
        "CreateContainerRequest": {
            "pod_sandbox_id": (1, "string"),
            "config": (2, "ContainerConfig"),
            "sandbox_config": (3, "PodSandboxConfig"),
        },
        "CreateContainerResponse": {"container_id": (1, "string")},
        "StartContainerRequest": {"container_id": (1, "string")},
        "StartContainerResponse": {},
        "StopContainerRequest": {"container_id": (1, "string"), "timeout": (2, "int64")},
        "StopContainerResponse": {},
        "ExecSyncRequest": {
            "container_id": (1, "string"),
            "cmd": (2, "*string"),
            "timeout": (3, "int64"),
        },
        "ExecSyncResponse": {"stdout": (1, "bytes"), "stderr": (2, "bytes"), "exit_code": (3, "int32")},
    }
)
POD, NODE = 0, 2  # enum NamespaceMode
_IMAGES = f"/{PACKAGE}.ImageService"


class Cri:
    """One connection to a runtime."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.insecure_channel(
            f"unix://{socket}",
            # The socket may not be there yet, and one that failed before is tried again soon.
            [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 100)],
        )

    def close(self) -> None:
        """Ends it."""
        self._channel.close()

    def call(self, method: str, patience: float = _PATIENCE, wait: bool = False, **fields: Any) -> Any:
        """Call a method and return its answer. Raises grpc.RpcError. `wait`: for the socket to be there."""
        service = _IMAGES if method == "PullImage" else SERVICE
        call: grpc.UnaryUnaryMultiCallable[Any, Any] = self._channel.unary_unary(
            f"{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=MESSAGES[f"{method}Response"].FromString,
        )
        return call(MESSAGES[f"{method}Request"](**fields), timeout=patience, wait_for_ready=wait)


def sandbox(name: str, labels: Mapping[str, str], network: int = POD) -> Any:
    """What is to be said of a pod."""
    return MESSAGES["PodSandboxConfig"](
        metadata={"name": name, "uid": name, "namespace": "default"},
        labels=labels,
        linux={"security_context": {"namespace_options": {"network": network}}},
    )
