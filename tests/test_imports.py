"""Which room may import which: read off the sources, so that nothing has to be installed or run."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = (  # a room imports itself and those in front of it
    "sparse_model.files",
    "sparse_model.tensors",
    "sparse_model.writing",
    "sparse_model.once",
    "sparse_model.conditions",
    "sparse_model.method",
    "sparse_model.networks",
    "sparse_model.checkpoints",
    "sparse_model.cost",
    "sparse_model.pictures",
    "sparse_model.training",
    "sparse_model.evaluation",
    "sparse_model.commands",
    "sparse_model.__main__",
    "nodes.host.notices",
    "nodes.host.plain",
    "nodes.host.wire",
    "nodes.host.own",
    "nodes.host.routes",
    "nodes.host.adapters",
    "nodes.host.cost",
    "nodes.host.guide",
    "nodes.host",
    "nodes",
    "__init__",
)
HOST = {"aiohttp", "comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "nodes", "server"}

FOREIGN_TO_NETWORKS = (
    "sparse_model.method.schedule",
    "sparse_model.method.prediction",
    "sparse_model.files",
    "sparse_model.tensors",
)
"""How a network is trained, guided or found in files, which is for checkpoints to know."""


def modules() -> dict[str, Path]:
    """Dotted name below the repository -> file, of everything that the pack ships."""
    paths = [ROOT / "__init__.py", *(ROOT / "sparse_model").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")]
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths)
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


MODULES = modules()


def imported(name: str, tree: ast.AST) -> Iterator[str]:
    """Modules of the pack that a module imports, wherever in it, by absolute or relative names."""
    package = name.split(".") if MODULES[name].name == "__init__.py" else name.split(".")[:-1]
    if name == "__init__":
        package = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            targets = [f"{base}.{alias.name}".strip(".") for alias in node.names]
        else:
            continue
        for target in targets:
            while target and target not in MODULES:  # a name inside a module
                target = target.rpartition(".")[0]
            if target and target != name:
                yield target


def always(tree: ast.Module) -> ast.Module:
    """Only what is imported whenever the module is: not inside functions, nor for type checkers."""

    class Outside(ast.NodeTransformer):
        def visit_FunctionDef(self, node):
            return None

        visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef

        def visit_If(self, node):
            return None if "TYPE_CHECKING" in ast.unparse(node.test) else node

    return Outside().visit(tree)


def room(name: str) -> int:
    """The place in ORDER of the innermost room that a module is in; the bare package comes first."""
    fitting = [
        (len(prefix), place) for place, prefix in enumerate(ORDER) if name == prefix or name.startswith(f"{prefix}.")
    ]
    if name == "sparse_model":
        return 0
    if not fitting:
        raise ValueError(f"{name} is in no room; give it a place in ORDER.")
    return max(fitting)[1]


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Module -> modules of the pack that it imports, at any time."""
    return {name: set(imported(name, ast.parse(path.read_text(encoding="utf-8")))) for name, path in MODULES.items()}


def test_the_reader_of_imports_sees_every_kind():
    tree = ast.parse(
        "import sparse_model.files\nfrom . import labels\nfrom ..method.tokens import take\nimport torch\n"
        "def f():\n    from ..cost import step_cost\n"
    )
    seen = list(imported("sparse_model.conditions.text", tree))
    assert seen == [
        "sparse_model.files", "sparse_model.conditions.labels", "sparse_model.method.tokens", "sparse_model.cost",
    ]  # fmt: skip
    assert "sparse_model.cost" not in imported("sparse_model.conditions.text", always(tree))


def test_imports_point_one_way(imports):
    against = [(name, target) for name, targets in imports.items() for target in targets if room(target) > room(name)]
    assert against == []


def test_the_guides_tree_shows_every_room():
    """The files and folders of the pack's own code, each in its part of the tree."""
    tree = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8").split("## How it is built")[1].split("```")[1]
    parts = {part.split()[0]: part for part in re.split(r"\n(?=\S)", tree.strip())}
    shown = {folder: set(parts[folder].split()) for folder in ("nodes/host/", "sparse_model/")}
    there = {
        folder: {f"{path.name}/" if path.is_dir() else path.name for path in (ROOT / folder).iterdir()}
        for folder in shown
    }
    missing = {
        folder: [name for name in sorted(names) if not name.startswith("__") and name not in shown[folder]]
        for folder, names in there.items()
    }
    assert missing == {folder: [] for folder in shown}


def test_networks_know_no_files_and_no_schedules(imports):
    known = {
        (name, target)
        for name, targets in imports.items()
        if name.startswith("sparse_model.networks")
        for target in targets & set(FOREIGN_TO_NETWORKS)
    }
    assert not known


def test_no_module_imports_itself_in_a_circle():
    graph = {}
    for name, path in MODULES.items():
        graph[name] = set(imported(name, always(ast.parse(path.read_text(encoding="utf-8")))))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


def test_the_method_knows_no_host():
    for name, path in MODULES.items():
        if name.startswith("sparse_model"):
            nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
            named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
            named |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
            assert not {target.split(".")[0] for target in named} & HOST, name
