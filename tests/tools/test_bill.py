"""The bill of materials: valid CycloneDX, complete, true to what is installed."""

import hashlib
import importlib.metadata
import json
import platform
import sys
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from vendoring import DATE, SECONDS, small_tree

import optax_ls
from optax_ls._tools import requirements as _requirements
from optax_ls._tools.bill import _component, _shipped, bill
from optax_ls._tools.cli import main
from optax_ls._tools.common import Refusal
from optax_ls._tools.requirements import Installed, installed
from optax_ls._tools.vendor.copy import put
from optax_ls._tools.vendor.origin import VENDORED, Origin, Source, find_origin
from optax_ls._version import REQUIRES

INSTALLED = installed()
SOURCE = Source("0123abc", DATE)


@pytest.fixture(autouse=True)
def epoch(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(SECONDS))


@pytest.fixture
def few(make):
    """What the package needs, each without contents or needs of its own."""
    return {name: Installed(make(name), frozenset()) for name in REQUIRES}


@pytest.fixture(scope="module")
def written():
    """The bill of this installation, as bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", str(SECONDS))
        return bill(find_origin(), SOURCE, INSTALLED)


@pytest.fixture(scope="module")
def document(written):
    return json.loads(written)


@pytest.fixture(scope="module")
def components(document):
    return {component["name"]: component for component in document["components"]}


def properties(component):
    return {x["name"].removeprefix("optax_ls:"): x["value"] for x in component["properties"]}


def complaint(text):
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


# The document.


def test_it_is_valid_by_the_official_schema(written):
    assert complaint(written.decode()) is None


def test_the_validator_would_complain(document):
    assert complaint(json.dumps({**document, "components": [{"type": "library"}]})) is not None


def test_it_says_what_it_is(document):
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"]["timestamp"] == DATE


def test_it_is_the_same_for_the_same_date(written):
    assert bill(find_origin(), SOURCE, installed()) == written


def test_it_has_another_number_for_another_date(few, monkeypatch):
    now = json.loads(bill(find_origin(), SOURCE, few))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    later = json.loads(bill(find_origin(), SOURCE, few))
    assert later["serialNumber"] != now["serialNumber"]


def test_it_is_about_the_package(document):
    ours = document["metadata"]["component"]
    assert (ours["name"], ours["version"]) == ("optax_ls", optax_ls.__version__)
    assert ours["licenses"][0]["license"]["id"] == "Apache-2.0"
    assert properties(ours)["revision"] == "0123abc"


def test_hash_of_the_package_is_that_of_the_list_of_its_files(document):
    package = Path(optax_ls.__file__).parent
    files = sorted(x for x in package.rglob("*") if x.suffix == ".py" or x.name == "py.typed")
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(package).as_posix()}\n"
        for file in files
    ]
    (hashed,) = document["metadata"]["component"]["hashes"]
    assert hashed == {
        "alg": "SHA-256",
        "content": hashlib.sha256("".join(lines).encode()).hexdigest(),
    }


def test_hash_of_a_vendored_package_leaves_its_record_out(few, tmp_path):
    put(small_tree(), tmp_path / "lib")
    origin = Origin(VENDORED, tmp_path / "lib")
    before = bill(origin, SOURCE, few)
    (tmp_path / "lib" / "VENDORED.json").write_text("another")
    assert bill(origin, SOURCE, few) == before
    (tmp_path / "lib" / "LICENSE").write_text("another")
    assert bill(origin, SOURCE, few) != before


# The dependencies that are installed.


def test_it_lists_what_jax_chex_and_numpy_bring(components):
    assert {"jax", "jaxlib", "numpy", "scipy", "ml_dtypes", "opt_einsum", "chex"} <= set(components)


def test_it_lists_nothing_else(components):
    strangers = {"pytest", "optax", "equinox", "matplotlib", "tqdm", "optax_ls", "setuptools"}
    assert not strangers & set(components)


def test_versions_are_those_installed(components):
    assert {name: x["version"] for name, x in components.items()} == {
        name: importlib.metadata.version(name) for name in components
    }


def test_every_component_has_an_spdx_licence_a_hash_and_an_address(components):
    for name, component in components.items():
        (licence,) = component["licenses"]
        assert licence.get("expression") or licence["license"].get("id"), name
        assert component["hashes"][0]["alg"] == "SHA-256"
        assert component["purl"].startswith("pkg:pypi/")


def test_dependencies_lead_from_the_package_to_every_component(document):
    graph = {x["ref"]: x["dependsOn"] for x in document["dependencies"]}
    reached, waiting = set(), [document["metadata"]["component"]["bom-ref"]]
    while waiting:
        ref = waiting.pop()
        if ref not in reached:
            reached.add(ref)
            waiting += graph[ref]
    assert reached == set(graph)
    assert len(graph) == len(document["components"]) + 1


def test_dependency_without_metadata_is_refused():
    without = {name: x for name, x in INSTALLED.items() if name != "chex"}
    with pytest.raises(Refusal, match="chex is not installed as a distribution"):
        bill(find_origin(), SOURCE, without)


# Distributions made up.


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes a distribution that is found before others; returns it."""
    monkeypatch.syspath_prepend(tmp_path)

    def execute(name, *headers, files=(), record=True, version="1.0", points=""):
        info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *headers]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        if points:
            (info / "entry_points.txt").write_text(points)
        for path in files:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(path)
        if record:
            (info / "RECORD").write_text("".join(f"{path},,\n" for path in files))
        importlib.invalidate_caches()
        return importlib.metadata.distribution(name)

    return execute


@pytest.mark.parametrize(
    ("headers", "licence"),
    [
        (["License-Expression: MIT"], {"license": {"id": "MIT", "acknowledgement": "declared"}}),
        (
            ["License-Expression: MIT AND Zlib"],
            {"expression": "MIT AND Zlib", "acknowledgement": "declared"},
        ),
        (["License: ISC"], {"license": {"id": "ISC", "acknowledgement": "declared"}}),
        (
            ["Classifier: License :: OSI Approved :: BSD License"],
            {"license": {"name": "BSD License", "acknowledgement": "declared"}},
        ),
        (
            ["License: My own terms"],
            {"license": {"name": "My own terms", "acknowledgement": "declared"}},
        ),
    ],
)
def test_licence_is_the_declared_one(make, headers, licence):
    assert _component("ref", make("one", *headers))["licenses"] == [licence]


def test_licence_that_is_only_described_is_what_we_read(make):
    described = make("scipy", "License: Copyright (c)", version="0.1")
    (licence,) = _component("ref", described)["licenses"]
    assert licence == {"license": {"id": "BSD-3-Clause", "acknowledgement": "concluded"}}


def test_licence_nobody_tells_is_left_out(make):
    assert "licenses" not in _component("ref", make("one"))


def test_hash_is_of_what_was_in_the_archive(make):
    info = "one-1.0.dist-info"
    inside = ["one/a.py", f"{info}/WHEEL", f"{info}/licenses/RECORD.txt"]
    outside = [
        "../bin/one",
        "one/__pycache__/a.pyc",
        f"{info}/INSTALLER",
        f"{info}/direct_url.json",
    ]
    distribution = make("one", files=[*inside, *outside])
    assert [path for path, _ in _shipped(distribution)] == inside


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret", "one/../../secret"])
def test_no_file_outside_of_the_packages_is_read(make, path):
    distribution = make("one")
    (distribution.locate_file("one-1.0.dist-info") / "RECORD").write_text(f"{path},,\n")
    assert not list(_shipped(distribution))


def test_file_that_is_gone_leaves_no_hash_and_is_told(make):
    distribution = make("one", files=["one/a.py"])
    distribution.locate_file("one/a.py").unlink()
    component = _component("ref", distribution)
    assert "hashes" not in component
    assert properties(component)["hash"].startswith("none: a file cannot be read: No such file")


def test_distribution_without_record_has_no_hash_and_says_so(make):
    component = _component("ref", make("one", record=False))
    assert "hashes" not in component
    assert properties(component)["hash"].endswith("record of its files: it is missing or empty")


def test_needs_of_needs_are_followed_where_their_conditions_hold(make, monkeypatch):
    monkeypatch.setattr(_requirements, "REQUIRES", {"one": ""})
    make("one", "Requires-Dist: Two.Two[more]>=1", "Requires-Dist: three; extra == 'all'")
    make("two_two", "Requires-Dist: four; extra == 'more'", "Requires-Dist: one")
    make("three")
    make("four", "Requires-Dist: nowhere", "Requires-Dist: three; python_version < '3'")
    found = {name: x.needs for name, x in installed().items()}
    assert found == {"four": set(), "one": {"two-two"}, "two-two": {"four", "one"}}


def test_plugins_of_jax_are_followed_with_their_extras(make, monkeypatch):
    monkeypatch.setattr(_requirements, "REQUIRES", {})
    point = "[jax_plugins]\ngpu = gpu_plugin\n"
    extra = ["Provides-Extra: with-cuda", 'Requires-Dist: cuda-lib; extra == "with-cuda"']
    make("gpu_plugin", *extra, points=point)
    make("cuda-lib")
    assert {"cuda-lib", "gpu-plugin"} <= set(installed())


VERSION = "{}.{}".format(*sys.version_info)


@pytest.mark.parametrize(
    ("marker", "holds"),
    [
        (None, True),
        ("", True),
        ("python_version >= '3.10'", True),
        ("python_version < '3.9'", False),
        ("python_version > '3.9'", True),
        ("'3.9' < python_version", True),
        (f"python_version == '{VERSION}'", True),
        (f"python_version != '{VERSION}'", False),
        (f"python_version <= '{VERSION}'", True),
        ("python_full_version >= '3.10.0'", True),
        (f"sys_platform == '{sys.platform}'", True),
        (f"platform_system == '{platform.system()}'", True),
        ("sys_platform == 'other' or os_name == 'other'", False),
        ("sys_platform != 'other' and (os_name != 'other' or extra == 'x')", True),
        ("platform_machine in 'one other'", False),
        ("platform_machine not in 'one other'", True),
        ("extra == 'all'", False),
        ("python_version ~= '3.10'", True),
        ("unheard_of == '1'", True),
        ("'1' == '1'", True),
        ("__import__('os').abort()", True),
    ],
)
def test_condition_of_a_requirement(marker, holds):
    assert _requirements._holds(marker, "") is holds


# The command.


@pytest.fixture
def quick(few, monkeypatch):
    monkeypatch.setattr("optax_ls._tools.sbom.installed", lambda: few)


def test_command_prints_the_bill(quick, few, capsys):
    assert main(["sbom"]) == 0
    printed = capsys.readouterr().out
    assert {component["name"] for component in json.loads(printed)["components"]} == set(few)


def test_command_writes_the_bill(quick, capsys, tmp_path):
    assert main(["sbom", "--output", str(tmp_path / "bill.json")]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'bill.json'}\n"
    assert complaint((tmp_path / "bill.json").read_text()) is None


def test_bill_that_cannot_be_written_is_told(capsys, tmp_path):
    assert main(["sbom", "--output", str(tmp_path / "no" / "bill.json")]) == 2
    assert "cannot write" in capsys.readouterr().err
