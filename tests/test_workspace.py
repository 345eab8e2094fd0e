"""What uv does not check in a workspace: that each package is whole and honest on its own.

uv locks a workspace whose sibling ranges exclude each other, a shared environment hides an undeclared import, and an
editable install hides a file that the wheel lacks. The members are read from the root; a new one is tested at once.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
# Distributions of imports that name themselves otherwise; needed only for extras that are not installed here.
DISTRIBUTIONS = {"umap": "umap-learn", "pynvml": "nvidia-ml-py"}
TEST_TOOLS = ["beartype", "hypothesis", "jaxtyping", "pytest", "pytest-timeout"]


@dataclass(frozen=True)
class Member:
    """One package of the workspace."""

    path: Path
    project: dict

    @property
    def name(self) -> str:
        return self.project["name"]

    @property
    def version(self) -> Version:
        return Version(self.project["version"])

    @property
    def source(self) -> Path:
        return self.path / "src" / self.name.replace("-", "_")

    @property
    def requirements(self) -> list[Requirement]:
        """With those of the extras."""
        extras = self.project.get("optional-dependencies", {}).values()
        return [Requirement(text) for group in (self.project["dependencies"], *extras) for text in group]


def read_workspace(root: Path) -> tuple[dict, dict[str, Member]]:
    """The root's pyproject.toml and the members by name."""
    top = tomllib.loads((root / "pyproject.toml").read_text())
    paths = [path for pattern in top["tool"]["uv"]["workspace"]["members"] for path in sorted(root.glob(pattern))]
    members = [Member(path, tomllib.loads((path / "pyproject.toml").read_text())["project"]) for path in paths]
    return top, {member.name: member for member in members}


TOP, MEMBERS = read_workspace(ROOT)
each_member = pytest.mark.parametrize("member", MEMBERS.values(), ids=MEMBERS)


# -- 1. ranges


def faults(requirement: Requirement, siblings: dict[str, Version]) -> list[str]:
    """What is wrong with a requirement's range, for a sibling or for anybody else."""
    operators = {specifier.operator for specifier in requirement.specifier}
    found = [] if operators & {">=", ">", "~=", "=="} else [f"{requirement} has no lower bound"]
    if (present := siblings.get(requirement.name)) is not None:
        if not operators & {"<=", "<", "~=", "=="}:
            found.append(f"{requirement} has no upper bound")
        if not requirement.specifier.contains(present, prereleases=True):
            found.append(f"{requirement} excludes the present {present}")
    return found


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("gen-core>=0.3,<0.4", []),
        ("gen-core~=0.3", []),
        ("gen-core>=9", ["has no upper bound", "excludes the present 0.3.0"]),  # uv lock and uv sync accept it
        ("gen-core", ["has no lower bound", "has no upper bound"]),
        ("gen-core>=0.2,<0.3", ["excludes the present 0.3.0"]),
        ("pytest", ["has no lower bound"]),  # lowest-direct takes pytest 2.0.0
        ("torch>=2.11", []),
    ],
)
def test_a_bad_range_is_found(text, wrong):
    found = faults(Requirement(text), {"gen-core": Version("0.3.0")})
    assert [fault.split(" ", 1)[1] for fault in found] == wrong


@each_member
def test_every_range_has_its_bounds_and_holds_the_present_sibling(member):
    siblings = {name: other.version for name, other in MEMBERS.items()}
    assert [fault for requirement in member.requirements for fault in faults(requirement, siblings)] == []


def test_development_tools_have_lower_bounds():
    groups = TOP["dependency-groups"].values()
    assert [fault for group in groups for text in group for fault in faults(Requirement(text), {})] == []


# -- the shape of a package


@each_member
def test_a_package_has_its_parts(member):
    version = member.project["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version), "a version is static and reviewed"
    assert "dynamic" not in member.project
    assert f"## {version}\n" in (member.path / "CHANGELOG.md").read_text()
    assert (member.path / "README.md").read_text().startswith(f"# {member.name}\n")
    assert (member.source / "__init__.py").exists() and (member.source / "py.typed").exists()
    build = tomllib.loads((member.path / "pyproject.toml").read_text())["build-system"]
    assert build["build-backend"] == "uv_build"
    (backend,) = map(Requirement, build["requires"])
    assert faults(backend, {"uv_build": Version("0.13")}) == []


def test_the_workspace_installs_every_member_and_has_a_licence():
    assert set(TOP["project"]["dependencies"]) == set(TOP["tool"]["uv"]["sources"]) == set(MEMBERS)
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_test_files_of_one_name_do_not_meet():
    """Importlib mode, and no tests directory that is a package."""
    assert "--import-mode=importlib" in TOP["tool"]["pytest"]["ini_options"]["addopts"]
    assert [path for member in MEMBERS.values() for path in (member.path / "tests").rglob("__init__.py")] == []


# -- 4. imports


def imports(source: str) -> set[str]:
    """Every module that a source imports, inside functions too; torch.distributed also as an attribute of torch."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)}
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.distributed":
            found.add("torch.distributed")
    return found


def test_imports_are_found_wherever_they_hide():
    source = """
import os.path, torch
def f():
    from umap import UMAP
    from torch import distributed
    importlib.import_module("gradio")
    torch.distributed.barrier()
"""
    names = imports(source)
    assert {name.split(".")[0] for name in names} == {"os", "torch", "umap", "gradio"}
    assert "torch.distributed" in names


@each_member
def test_every_import_is_declared(member):
    declared = {canonicalize_name(requirement.name) for requirement in member.requirements}
    installed = packages_distributions()
    strangers = []
    for file in sorted(member.source.rglob("*.py")):
        for top in sorted({name.split(".")[0] for name in imports(file.read_text())}):
            names = installed.get(top, [DISTRIBUTIONS.get(top, top)])
            if top not in sys.stdlib_module_names and top != member.source.name:
                if not declared & {canonicalize_name(name) for name in names}:
                    strangers.append(f"{file.relative_to(ROOT)} imports {top}, which {member.name} does not declare")
    assert strangers == []


@each_member
def test_a_package_knows_no_sibling_but_gen_core(member):
    """gen-core and gen-green know none; apps may know all."""
    siblings = {requirement.name for requirement in member.requirements} & MEMBERS.keys()
    if member.path.parent.name == "packages":
        assert siblings <= ({"gen-core"} if member.name not in ("gen-core", "gen-green") else set())


@each_member
def test_only_gen_core_talks_to_torch_distributed(member):
    users = [file for file in member.source.rglob("*.py") if _distributed(imports(file.read_text()))]
    assert member.name == "gen-core" or users == []


def _distributed(names: set[str]) -> bool:
    return any(name == "torch.distributed" or name.startswith("torch.distributed.") for name in names)


# -- 2. each wheel alone


def uv(*args: str | Path, cwd: Path = ROOT) -> str:
    """Run uv with the root's date, so that these installs resolve as the workspace does."""
    command = [os.environ.get("UV") or shutil.which("uv") or "uv", *map(str, args)]
    env = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    env["UV_EXCLUDE_NEWER"] = TOP["tool"]["uv"]["exclude-newer"]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, f"uv {' '.join(map(str, args))}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


def make_environment(folder: Path, *installs: list[str | Path]) -> Path:
    """A fresh virtual environment after one `uv pip install` for each list; its bin directory."""
    uv("venv", "--python", sys.executable, folder)
    for install in installs:
        uv("pip", "install", "--python", folder / "bin" / "python", *install, cwd=folder)
    return folder / "bin"


TWO_OF_EACH = """
from itertools import groupby


def pytest_collection_modifyitems(config, items):
    kept = [item for _, group in groupby(items, key=lambda item: item.path) for item in list(group)[:2]]
    config.hook.pytest_deselected(items=items[len(kept):])
    items[:] = kept
"""


def run_tests(member: Member, bin: Path, folder: Path) -> None:
    """Import the package and run two tests of each of its files, copied, with the root's settings and nothing else.

    All of them run in the workspace; what can go wrong here is an import, a file that the wheel lacks, a fixture.
    """
    env = {"PATH": f"{bin}:{os.environ['PATH']}", "HOME": str(folder), "OMP_NUM_THREADS": "2"}

    def call(*command: str | Path) -> None:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=800)
        assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-8000:]}{done.stderr[-4000:]}"

    module = member.source.name
    call(bin / "python", "-c", f"import {module}; assert {str(bin.parent)!r} in {module}.__file__, {module}.__file__")
    for script in member.project.get("scripts", {}):
        call(bin / script, "--help")
    if any((member.path / "tests").rglob("test_*.py")):
        shutil.copytree(member.path / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(member.path / "README.md", folder)
        section = r"^\[tool\.pytest\.ini_options\]$.*?(?=^\[|\Z)"
        settings = re.search(section, (ROOT / "pyproject.toml").read_text(), re.M | re.S)
        (folder / "pyproject.toml").write_text(settings[0])
        (folder / "two_of_each.py").write_text(TWO_OF_EACH)
        options = ["-q", "-p", "no:cacheprovider", "-p", "two_of_each", "-c", "pyproject.toml"]
        env["PYTHONPATH"] = str(folder)
        call(bin / "python", "-m", "pytest", *options, "tests")


def build(target: Path, *more: str | Path, cwd: Path = ROOT) -> Path:
    uv("build", "--no-sources", "--out-dir", target, *more, cwd=cwd)
    return target


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("dist"), "--all-packages")


def wheel(folder: Path, member: Member) -> Path:
    (found,) = folder.glob(f"{member.source.name}-{member.version}-*.whl")
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
@each_member
def test_a_wheel_alone_passes_its_tests(member, dist, tmp_path):
    """From outside of the tree, with what it declares and the test tools, and no other package of ours."""
    names = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", wheel(dist, member)], capture_output=True, text=True, check=True
    ).stdout
    assert f"{member.source.name}/py.typed" in names
    bin = make_environment(tmp_path / "venv", ["--find-links", dist, wheel(dist, member), *TEST_TOOLS])
    listed = uv("pip", "list", "--format=freeze", "--python", bin / "python")
    ours = {line.split("==")[0] for line in listed.splitlines()} & MEMBERS.keys()
    assert ours == {member.name} | {r.name for r in member.requirements if r.name in MEMBERS}
    run_tests(member, bin, tmp_path)
    shutil.rmtree(tmp_path / "venv")


# -- 3. lowest siblings


def oldest_allowed(root: Path, sibling: Member, allowed: SpecifierSet) -> Version:
    """The oldest version that is tagged gen-x-v1.2.3 and allowed, or the present one."""
    command = ["git", "tag", "--list", f"{sibling.name}-v*"]
    tags = subprocess.run(command, cwd=root, capture_output=True, text=True).stdout.split()
    tagged = [Version(tag.removeprefix(f"{sibling.name}-v")) for tag in tags]
    return min([*allowed.filter(tagged), sibling.version])


def wheelhouse(root: Path, member: Member, folder: Path) -> dict[str, Version]:
    """Wheels of the oldest siblings that a package allows; their versions by name."""
    siblings = {r.name: r.specifier for r in member.requirements if r.name in MEMBERS}
    _, present = read_workspace(root)
    versions = {name: oldest_allowed(root, present[name], allowed) for name, allowed in siblings.items()}
    for name, version in versions.items():
        source = present[name].path
        if version != present[name].version:
            relative = source.relative_to(root)
            archive = ["git", "archive", "--format=tar", f"{name}-v{version}", str(relative)]
            tar = subprocess.run(archive, cwd=root, capture_output=True, check=True).stdout
            (folder / name).mkdir()
            subprocess.run(["tar", "-x", "-C", folder / name], input=tar, check=True)
            source = folder / name / relative
        build(folder / "wheels", "--wheel", cwd=source)
    return versions


@pytest.mark.slow
@pytest.mark.timeout(900)
@each_member
def test_the_lowest_siblings_suffice(member, dist, tmp_path):
    """Resolved to the lowest siblings that it allows, a package still passes its tests.

    Where these are the present ones, the test above has run with them, and only the resolution is left to show.
    """
    lowest = wheelhouse(ROOT, member, tmp_path)
    if not lowest:
        pytest.skip(f"{member.name} has no siblings")
    siblings = [str(r) for r in member.requirements if r.name in MEMBERS]
    resolve = ["--resolution", "lowest-direct", "--no-deps", "--find-links", tmp_path / "wheels", *siblings]
    bin = make_environment(tmp_path / "venv", resolve)
    listed = dict(line.split("==") for line in uv("pip", "list", "--format=freeze", "--python", bin / "python").split())
    assert {name: Version(version) for name, version in listed.items()} == lowest
    if any(version != MEMBERS[name].version for name, version in lowest.items()):
        pinned = [f"{name}=={version}" for name, version in lowest.items()]
        install = ["--find-links", tmp_path / "wheels", *pinned, wheel(dist, member), *TEST_TOOLS]
        uv("pip", "install", "--python", bin / "python", *install, cwd=tmp_path)
        run_tests(member, bin, tmp_path)
    shutil.rmtree(tmp_path / "venv")


@pytest.mark.slow
def test_the_lowest_sibling_is_built_from_its_tag(tmp_path):
    """In a copy where gen-core has moved on from its tag, the wheelhouse holds the tagged one."""
    copy = tmp_path / "copy"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)

    def git(*args: str) -> None:
        identity = ["-c", "user.name=test", "-c", "user.email=test@test", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *args], cwd=copy, check=True, capture_output=True)

    git("init")
    git("add", "--all")
    git("commit", "--message", "as it is")
    core, version = MEMBERS["gen-core"], MEMBERS["gen-core"].version
    git("tag", f"gen-core-v{version}")
    moved = copy / core.path.relative_to(ROOT) / "pyproject.toml"
    moved.write_text(moved.read_text().replace(f'version = "{version}"', f'version = "{version}.1"', 1))
    user = next(member for member in MEMBERS.values() if "gen-core" in {r.name for r in member.requirements})
    (tmp_path / "house").mkdir()
    assert wheelhouse(copy, user, tmp_path / "house")["gen-core"] == version
    assert list((tmp_path / "house" / "wheels").glob(f"gen_core-{version}-*.whl"))
