"""Generate service/uringd/v1/ from the .proto files, or check that it is fresh.

python protos/generate.py           write the modules and their stubs
python protos/generate.py --check   write nothing; exit 1 and name the files that are stale

A protobuf runtime refuses modules from a protoc newer than itself, so the compiler is an old one on
purpose: users are not forced onto the newest runtime by a file they did not generate.
"""  # noqa: INP001 - a script beside the files it reads, not a package

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROTOC_VERSION = "libprotoc 29.3"
# This protoc writes Mapping without its parameters, which mypy's strict mode refuses.
STUB_HEAD = "# mypy: disable-error-code=type-arg\n"
PROTOS = Path(__file__).resolve().parent
SOURCES = sorted((PROTOS / "uringd" / "v1").glob("*.proto"))
TARGET = PROTOS.parent / "service"


def find_protoc() -> str:
    """Return the compiler beside this interpreter, else the one on PATH, if it is the right one."""
    beside = Path(sys.executable).parent / "protoc"
    protoc = str(beside) if beside.exists() else shutil.which("protoc")
    if protoc is None:
        sys.exit("there is no protoc: pip install '.[dev]'")
    said = subprocess.run([protoc, "--version"], capture_output=True, text=True, check=True)  # noqa: S603 - our own compiler
    if said.stdout.strip() != PROTOC_VERSION:
        sys.exit(f"{protoc} is {said.stdout.strip()}, needed is {PROTOC_VERSION}")
    return protoc


def generate(directory: Path) -> list[Path]:
    """Write the modules and stubs below directory; return their paths relative to it."""
    subprocess.run(  # noqa: S603 - our own compiler on our own files
        [
            find_protoc(),
            f"--proto_path={PROTOS}",
            f"--python_out={directory}",
            f"--pyi_out={directory}",
            *map(str, SOURCES),
        ],
        check=True,
    )
    for stub in directory.rglob("*_pb2.pyi"):
        stub.write_text(STUB_HEAD + stub.read_text())
    return sorted(path.relative_to(directory) for path in directory.rglob("*_pb2.py*"))


def main(arguments: list[str]) -> int:
    """Write or compare; return the exit code."""
    if arguments not in ([], ["--check"]):
        sys.exit("usage: python protos/generate.py [--check]")
    with tempfile.TemporaryDirectory() as directory:
        made = {path: (Path(directory) / path).read_bytes() for path in generate(Path(directory))}
    there = {path.relative_to(TARGET) for path in (TARGET / "uringd" / "v1").glob("*_pb2.py*")}
    stale = [
        path
        for path in sorted(there | set(made))
        if path not in there or made.get(path) != (TARGET / path).read_bytes()
    ]
    if arguments:
        for path in stale:
            sys.stderr.write(f"{path} is stale: python protos/generate.py\n")
        return 1 if stale else 0
    for path in stale:
        if path in made:
            (TARGET / path).write_bytes(made[path])
        else:
            (TARGET / path).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
