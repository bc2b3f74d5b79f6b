"""What containers are built from: the extras an image installs suffice for what it runs, and bring no more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

DOCKER = Path(__file__).resolve().parents[2] / "docker"
SERVICES = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]


def extras(image: str) -> frozenset[str]:
    """The extras of mmearth that a Dockerfile installs."""
    found = re.search(r"pip install .*'\.\[([\w,]+)\]'", (DOCKER / f"{image}.Dockerfile").read_text())
    assert found
    return frozenset(found[1].split(","))


def ours(wanted: frozenset[str]) -> list[str]:
    """What pyproject.toml asks for with these extras of our own."""
    project = tomllib.loads((DOCKER.parent / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in wanted for line in project["optional-dependencies"][extra])]
    requirements = [Requirement(line) for line in lines]
    nested = frozenset(extra for r in requirements if r.name == "mmearth" for extra in r.extras)
    return lines if nested <= wanted else ours(wanted | nested)


def brought_along(wanted: frozenset[str]) -> set[str]:
    """Names of every distribution that installing mmearth with these extras brings along."""
    todo = [(line, frozenset[str]()) for line in ours(wanted)]
    seen: set[tuple[str, frozenset[str]]] = {("mmearth", frozenset())}
    while todo:
        line, extras_above = todo.pop()
        requirement = Requirement(line)
        name, own = canonicalize_name(requirement.name), frozenset(requirement.extras)
        marker = requirement.marker
        applies = marker is None or any(marker.evaluate({"extra": extra}) for extra in extras_above | {""})
        if applies and name != "mmearth" and (name, own) not in seen:
            seen.add((name, own))
            todo += [(below, own) for below in distribution(name).requires or ()]
    return {name for name, _ in seen}


def in_image(image: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in which nothing can be imported but what the image has."""
    there = brought_along(extras(image))
    absent = sorted(
        module for module, owners in packages_distributions().items()
        if not {canonicalize_name(owner) for owner in owners} & there and module not in ("_distutils_hack", "pip")
    )  # fmt: skip
    hidden = f"import sys; sys.modules.update(dict.fromkeys({absent!r}))\n"
    return subprocess.run(
        [sys.executable, "-c", hidden + script], capture_output=True, text=True, timeout=200, check=False
    )


@pytest.mark.parametrize(
    ("image", "script"),
    [
        ("collect", "import flows.collect, flows.finalize, flows.sample, prefect_dask, prefect_docker, asyncpg"),
        ("train", "import mmearth_train.pretrain\nfrom flows.cli import main; main(['pretrain', '--help'])"),
    ],
)
def test_an_image_has_all_it_needs(image: str, script: str) -> None:
    result = in_image(image, script)
    assert result.returncode == 0, result.stderr


def test_the_training_image_has_neither_earth_engine_nor_prefect() -> None:
    there = brought_along(extras("train"))
    assert "torch" in there
    assert not there & {"prefect", "earthengine-api", "geopandas", "google-api-python-client", "pyproj", "distributed"}


def test_images_run_as_a_user_of_no_power_and_are_pinned() -> None:
    for file in DOCKER.glob("*.Dockerfile"):
        lines = file.read_text().splitlines()
        assert [line.split()[1] for line in lines if line.startswith("USER")] == ["1000"]
        assert all(re.search(r":\d+\.\d+\.\d+-", line) for line in lines if line.startswith("FROM"))
        assert any("--constraint constraints.txt" in line for line in lines)


def test_dockerfiles_are_free_of_lint() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    result = subprocess.run([hadolint, *sorted(DOCKER.glob("*.Dockerfile"))], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_what_is_copied_is_there_and_reaches_the_builder() -> None:
    for file in DOCKER.glob("*.Dockerfile"):
        let_through = {
            line[1:] for line in Path(f"{file}.dockerignore").read_text().splitlines() if line.startswith("!")
        }
        for line in file.read_text().splitlines():
            if line.startswith("COPY") and "--from" not in line:
                sources = [word for word in line.split()[1:-1] if not word.startswith("--")]
                assert all((DOCKER.parent / source).exists() for source in sources)
                assert {source.partition("/")[0] for source in sources} <= let_through


def test_the_volumes_that_services_write_to_belong_to_their_user() -> None:
    """Docker makes a missing mount point as root, and user 1000 could not write to it."""
    file = (DOCKER / "collect.Dockerfile").read_text()
    made = re.search(r"install --directory --owner mmearth ([^\n]*)", file)
    assert made
    volumes = [volume for name in ("server", "collect") for volume in SERVICES[name]["volumes"]]
    places = [Path(volume.removesuffix(":ro").rpartition(":")[2]) for volume in volumes if not volume.endswith(":ro")]
    assert len(places) == 2
    assert {str(place) for place in places} <= set(made[1].split())


def test_the_server_reaches_postgres_whatever_the_password_is(tmp_path: Path) -> None:
    password = "p@ss/w:rd#1"
    given = {
        name: value.replace("${POSTGRES_PASSWORD}", password)
        for name, value in SERVICES["server"]["environment"].items()
        if "DATABASE" in name
    }
    script = (
        "from sqlalchemy.engine import make_url\n"
        "from prefect.server.database.dependencies import provide_database_interface\n"
        "url = make_url(provide_database_interface().database_config.connection_url)\n"
        "print(url.drivername, url.host, url.database, url.username, url.password)"
    )
    environment = {"PATH": os.environ["PATH"], "PREFECT_HOME": str(tmp_path), **given}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    postgres = SERVICES["postgres"]["environment"]
    assert ran.stdout.split() == [
        "postgresql+asyncpg", "postgres", postgres["POSTGRES_DB"], postgres["POSTGRES_USER"], password,
    ]  # fmt: skip


def test_services_are_built_from_files_that_are_there_and_wait_for_services_that_are() -> None:
    assert set(SERVICES) == {"postgres", "server", "deploy", "collect", "trainer"}
    for service in SERVICES.values():
        if "build" in service:
            assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        assert set(service.get("depends_on", ())) <= set(SERVICES)
