"""Generate messages.json from uringd.proto, or check that it is fresh.

python tests/second_client/generate.py           write it
python tests/second_client/generate.py --check   write nothing; exit 1 when it is stale

The second client has no Protocol Buffers library: it reads and writes messages by this table, which
is protoc's own descriptor with what is of no use to it left out.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
)

HERE = Path(__file__).resolve().parent
TARGET = HERE / "messages.json"
PROTOS = HERE.parents[1] / "protos"
SOURCE = "uringd/v1/uringd.proto"
MARK = f"by tests/second_client/generate.py from protos/{SOURCE}: do not edit"


def find_protoc() -> str:
    """Return the compiler beside this interpreter, else the one on PATH."""
    beside = Path(sys.executable).parent / "protoc"
    protoc = str(beside) if beside.exists() else shutil.which("protoc")
    if protoc is None:
        sys.exit("there is no protoc: pip install '.[dev]'")
    return protoc


def describe() -> FileDescriptorSet:
    with tempfile.TemporaryDirectory() as directory:
        made = Path(directory) / "set"
        command = [find_protoc(), f"--proto_path={PROTOS}", f"--descriptor_set_out={made}", SOURCE]
        subprocess.run(command, check=True)
        return FileDescriptorSet.FromString(made.read_bytes())


def field(described: FieldDescriptorProto) -> dict[str, Any]:
    """One field: a oneof of a single member is what `optional` is."""
    kind = FieldDescriptorProto.Type.Name(described.type).removeprefix("TYPE_").lower()
    made: dict[str, Any] = {"name": described.name, "number": described.number, "type": kind}
    if described.type_name:
        made["of"] = described.type_name.rpartition(".")[2]
    if described.label == FieldDescriptorProto.LABEL_REPEATED:
        made["repeated"] = True
    elif described.proto3_optional:
        made["optional"] = True
    elif described.HasField("oneof_index"):
        made["oneof"] = described.oneof_index
    return made


def message(described: DescriptorProto) -> list[dict[str, Any]]:
    return [field(each) for each in sorted(described.field, key=lambda each: each.number)]


def generate() -> str:
    [file] = describe().file
    table = {
        "generated": MARK,
        "messages": {each.name: message(each) for each in file.message_type},
        "enums": {
            each.name: {value.name: value.number for value in each.value} for each in file.enum_type
        },
    }
    return json.dumps(table, indent=1) + "\n"


def main(arguments: list[str]) -> int:
    """Write or compare; return the exit code."""
    if arguments not in ([], ["--check"]):
        sys.exit("usage: python tests/second_client/generate.py [--check]")
    made = generate()
    if not arguments:
        TARGET.write_text(made)
    elif not TARGET.exists() or TARGET.read_text() != made:
        sys.stderr.write("messages.json is stale: python tests/second_client/generate.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
