"""The few messages of the CRI that are needed here, with the few fields of them that are.

What is not declared is passed over by protobuf. Names and numbers are those of kubernetes/cri-api,
pkg/apis/runtime/v1/api.proto, where numbers never change their meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "runtime.v1"
SERVICE = f"/{PACKAGE}.RuntimeService"

# A field has a number and a type: one of protobuf's, another message, or MAP; `*` stands before a repeated
# one.
MAP = "map<string, string>"
Fields = Mapping[str, tuple[int, str]]

MESSAGES: Mapping[str, Fields] = {
    "ContainerStateValue": {"state": (1, "int32")},
    "ContainerFilter": {"state": (2, "ContainerStateValue")},
    "ListContainersRequest": {"filter": (1, "ContainerFilter")},
    "ListContainersResponse": {"containers": (1, "*Container")},
    "Container": {
        "id": (1, "string"),
        "metadata": (3, "ContainerMetadata"),
        "image": (4, "ImageSpec"),
        "image_ref": (5, "string"),
        "state": (6, "int32"),
        "labels": (8, MAP),
    },
    "ContainerMetadata": {"name": (1, "string")},
    "ImageSpec": {"image": (1, "string"), "user_specified_image": (18, "string")},
    "ContainerStatusRequest": {"container_id": (1, "string"), "verbose": (2, "bool")},
    "ContainerStatusResponse": {"info": (2, MAP)},
}
RUNNING = 1  # CONTAINER_RUNNING of enum ContainerState; an enum is an int32 on the wire

_FIELD = descriptor_pb2.FieldDescriptorProto


def declare(messages: Mapping[str, Fields]) -> Mapping[str, Any]:
    """The classes of messages, by their names. Raises TypeError for a reference to one that is not there."""
    file = descriptor_pb2.FileDescriptorProto(name="cri.proto", package=PACKAGE, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _add_field(message, field, number, kind)
    # Of its own, as another one may know the same names from somewhere else.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptors = {name: pool.FindMessageTypeByName(f"{PACKAGE}.{name}") for name in messages}
    if hasattr(message_factory, "GetMessageClass"):
        return {name: message_factory.GetMessageClass(its) for name, its in descriptors.items()}
    # 4.21, which Debian 12 and 13 have; later versions are without it.
    factory: Any = message_factory.MessageFactory(pool)
    return {name: factory.GetPrototype(its) for name, its in descriptors.items()}


def _add_field(message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str) -> None:
    if kind == MAP:  # on the wire, and to protobuf, a list of pairs
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        _add_field(entry, "key", 1, "string")
        _add_field(entry, "value", 2, "string")
        kind = f"*{message.name}.{entry.name}"
    field = message.field.add(name=name, number=number, label=_FIELD.LABEL_OPTIONAL)
    if kind.startswith("*"):
        field.label = _FIELD.LABEL_REPEATED
        kind = kind[1:]
    if kind[0].isupper():
        field.type = _FIELD.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"
    else:
        field.type = _FIELD.Type.Value(f"TYPE_{kind.upper()}")
