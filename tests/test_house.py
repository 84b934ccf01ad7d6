"""The house rules of the layers, held by a test: who may import whom, and how big a file gets."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
LINES_MAX = 400
"""A file that gets longer is two files."""

LAYERS = ("_ring", "_trio")
WIRE_MAY = {"crc32c", "google", "typing_extensions"}
CLIENT_MAY_NOT = {"uringio", "trio"}


def sources(*tops: str) -> list[Path]:
    """Python files of ours, without what is generated."""
    found = [path for top in tops for path in sorted((ROOT / top).rglob("*.py"))]
    assert found
    return [path for path in found if "_pb2" not in path.name and "build" not in path.parts]


def module_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    if relative.parts[0] == "service":
        relative = relative.relative_to("service")
    parts = relative.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, also for types only, as an absolute name."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            name = ".".join(
                [*(base if node.level else []), *([node.module] if node.module else [])]
            )
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


def top(name: str) -> str:
    return name.partition(".")[0]


def under(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


LIBRARY = sources("uringio")
SERVICE = sources("service")


@pytest.mark.parametrize("path", LIBRARY, ids=module_of)
def test_trio_is_imported_only_in_its_layer(path: Path) -> None:
    if not under(module_of(path), "uringio._trio"):
        assert {top(name) for name in imports(path)}.isdisjoint({"trio", "outcome", "anyio"})


@pytest.mark.parametrize("path", LIBRARY, ids=module_of)
def test_nothing_imports_upward(path: Path) -> None:
    module, names = module_of(path), list(imports(path))
    assert not any(under(name, "uringd") for name in names), "the library knows no service"
    if under(module, "uringio._ring") or under(module, "uringio.testing"):
        assert not any(under(name, "uringio._trio") for name in names)
    if under(module, "uringio._ring") or under(module, "uringio._trio"):
        assert not any(under(name, "uringio.testing") for name in names)
        direct = {name for name in names if top(name) == "uringio" and name.count(".") == 1}
        assert direct <= {f"uringio.{part}" for part in ("_binding", "exceptions", *LAYERS)}
    if under(module, "uringio._binding"):
        ours = {name for name in names if under(name, "uringio")}
        assert all(under(name, "uringio._binding._liburing") for name in ours)
    if module == "uringio.exceptions":
        assert not any(under(name, "uringio") for name in names), "a leaf"


@pytest.mark.parametrize("path", LIBRARY, ids=module_of)
def test_only_the_ring_layer_touches_the_binding(path: Path) -> None:
    if not under(module_of(path), "uringio._ring") and not under(
        module_of(path), "uringio._binding"
    ):
        assert not any("_binding" in name for name in imports(path))


def test_the_wire_needs_nothing_but_a_checksum_and_messages() -> None:
    paths = [path for path in SERVICE if under(module_of(path), "uringd.wire")]
    if not paths:
        pytest.skip("there is no uringd.wire yet")
    for path in paths:
        for name in imports(path):
            assert (
                top(name) in sys.stdlib_module_names | WIRE_MAY
                or under(name, "uringd.wire")
                or under(name, "uringd.v1")
                or name == "uringd"
            ), f"{module_of(path)} imports {name}"


def test_the_client_needs_no_library_and_no_server() -> None:
    paths = [path for path in SERVICE if under(module_of(path), "uringd.client")]
    if not paths:
        pytest.skip("there is no uringd.client yet")
    for path in paths:
        assert {top(name) for name in imports(path)}.isdisjoint(CLIENT_MAY_NOT), module_of(path)


def test_a_child_that_imports_the_client_has_no_trio_and_no_library() -> None:
    """The same, at run time and through every module on the way."""
    if importlib.util.find_spec("uringd") is None:
        pytest.skip("uringd is not importable here")
    if importlib.util.find_spec("uringd.client") is None:
        pytest.skip("there is no uringd.client yet")
    seen = {"uringd.client"}
    queue = list(seen)
    by_name = {module_of(path): path for path in SERVICE}
    while queue:
        path = by_name.get(queue.pop())
        for name in imports(path) if path else ():
            assert top(name) not in CLIENT_MAY_NOT, f"{path} imports {name}"
            if name in by_name and name not in seen:
                seen.add(name)
                queue.append(name)


def test_service_is_no_package() -> None:
    """PyPI has one of that name already."""
    assert not (ROOT / "service" / "__init__.py").exists()
    spec = importlib.util.find_spec("service")
    assert spec is None or spec.origin is None, "at the most a folder on the path"
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert not any(top(name) == "service" for name in packages["packages"])


@pytest.mark.parametrize("name", ["uringio", "uringio.lowlevel", "uringio.testing"])
def test_public_names_exist_are_sorted_and_say_what_they_are(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__all__ == sorted(module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        value = getattr(module, public)
        assert inspect.getdoc(value), f"{name}.{public} has no docstring"
        if inspect.isclass(value) and value.__module__.startswith("uringio"):
            for member, method in vars(value).items():
                if not member.startswith("_") and inspect.isroutine(method):
                    assert inspect.getdoc(method), f"{name}.{public}.{member} has no docstring"


def test_what_the_public_names_import_is_all_there_is() -> None:
    """Every public name of uringio is bound there by one import, and every import is public."""
    tree = ast.parse((ROOT / "uringio" / "__init__.py").read_text())
    bound = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert bound == set(importlib.import_module("uringio").__all__)


@pytest.mark.parametrize("path", [*LIBRARY, *SERVICE], ids=module_of)
def test_every_module_says_what_it_is_and_is_of_a_size(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "a module has a docstring"
    assert len(text.splitlines()) <= LINES_MAX


def test_every_package_with_code_is_packaged() -> None:
    listed = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )
    paths = [*LIBRARY, *SERVICE]
    packages = {module_of(path) for path in paths if path.name == "__init__.py"}
    homes = {path.parent for path in paths}
    assert packages == listed
    assert all((home / "__init__.py").exists() for home in homes)


def test_the_version_is_the_installed_one() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    try:
        installed = importlib.metadata.version("uringd")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the distribution is not installed")
    assert installed == wanted
