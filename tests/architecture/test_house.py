"""House rules that a reader cannot check by eye: nothing executable on the wire, no machine of ours in the files."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("protocol", "site_node", "hub", "ui", "compose")
TEXT = {".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".sh", ".css", ".cfg", ".ini", ".mako", ""}
# Spelled in parts, so that this file does not contain what it forbids.
MACHINE_PATHS = re.compile(
    "|".join(("/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/[a-z]", "/Us" + "ers/", "/o" + "pt/wheels", "/t" + "mp/w/"))
)
UNFINISHED = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error")))
MAX_LINES = 400
FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (path for path in sorted((ROOT / package).rglob("*.py")) if "__pycache__" not in path.parts)


def tracked() -> list[Path]:
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, check=False, capture_output=True, timeout=60)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file() and path.suffix in TEXT]


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func)


def calls() -> Iterator[tuple[Path, ast.Call]]:
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield path, node


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in tracked()
        if (match := MACHINE_PATHS.search(path.read_text(encoding="utf-8", errors="replace")))
    ]
    assert found == []


def test_nothing_is_unfinished() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {m.group()}" for path in sources() if (m := UNFINISHED.search(path.read_text()))
    ]
    assert found == []


def test_no_module_that_executes_data_is_imported() -> None:
    found = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{path.relative_to(ROOT)}: {n}" for n in names if n.split(".")[0] in FORBIDDEN_MODULES]
    assert found == []


def test_no_eval_and_no_shell() -> None:
    found = []
    for path, call in calls():
        shell = any(
            k.arg == "shell" and not (isinstance(k.value, ast.Constant) and k.value.value is False)
            for k in call.keywords
        )
        if name_of(call) in FORBIDDEN_CALLS or name_of(call) in {"os.system", "os.popen"} or shell:
            found.append(f"{path.relative_to(ROOT)}:{call.lineno}: {name_of(call)}")
    assert found == []


def test_torch_load_is_never_used_without_weights_only() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path, call in calls()
        if name_of(call) == "torch.load"
        and not any(
            k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True
            for k in call.keywords
        )
    ]
    assert found == []


def test_yaml_is_always_read_safely() -> None:
    unsafe = {"yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"}
    assert [f"{path.relative_to(ROOT)}:{call.lineno}" for path, call in calls() if name_of(call) in unsafe] == []


def test_celery_takes_json_only() -> None:
    apps = [path for path in sources() if path.name == "app.py" and path.parent.name == "tasks"]
    assert len(apps) == 2
    for path in apps:
        text = path.read_text(encoding="utf-8")
        assert re.search(r"accept_content\s*=\s*\[\"json\"\]", text), f"{path.relative_to(ROOT)} must accept JSON alone"


def test_files_are_of_a_readable_length() -> None:
    long = [str(path.relative_to(ROOT)) for path in sources() if len(path.read_text().splitlines()) > MAX_LINES]
    assert long == []


def test_every_package_says_in_a_sentence_what_it_is() -> None:
    for path in sources():
        if path.name == "__init__.py":
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            assert re.fullmatch(r"(?s).{20,}\.", text or ""), f"{path.relative_to(ROOT)} needs one true sentence"
