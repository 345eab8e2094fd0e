"""What the licences of the shipped tables ask for travels with them."""

import tomllib
from pathlib import Path

import pytest

from gen_green.tables import DATA, rows

NOTICES = {"MIT": "LICENSE.codecarbon", "CC-BY-4.0": "LICENSE.cc-by"}
PROJECT = Path(__file__).parents[1]


def test_each_licence_of_a_table_has_its_notice_beside_it():
    """Facts (data sheets) need none."""
    licences = {row["licence"] for name in ("cpu", "gpu", "factors", "intensity") for row in rows(name)}
    named = {part for licence in licences for part in licence.split("; ")} - {"fact"}
    assert named == set(NOTICES) and all((DATA / file).is_file() for file in NOTICES.values())


def test_the_mit_licence_is_whole():
    """Its one condition: the copyright notice and the permission notice are in all copies."""
    notice = (DATA / NOTICES["MIT"]).read_text()
    for part in (
        "Copyright (c) 2023 Code Carbon NGO",
        "Permission is hereby granted",
        "shall be included in all\ncopies",
    ):
        assert part in notice


@pytest.mark.skipif(not (PROJECT / "pyproject.toml").is_file(), reason="the project file is not in the wheel")
def test_the_wheel_declares_the_licences_and_has_their_files():
    """uv_build puts what `license-files` matches into the wheel's dist-info, and the package's data beside the code."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0 AND " + " AND ".join(NOTICES)
    files = {path.name for pattern in project["license-files"] for path in PROJECT.glob(pattern)}
    assert files == {"LICENSE", *NOTICES.values()}
