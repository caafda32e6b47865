"""The bill of materials: valid CycloneDX, complete, true to what is installed or packed."""

import hashlib
import importlib.metadata
import json
import zipfile

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from vendoring import DATE, SECONDS, small_tree

import optax_ls
from optax_ls._tools.vendor.replace import put

bill = pytest.importorskip("distribution.bill")


@pytest.fixture(autouse=True)
def epoch(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(SECONDS))


@pytest.fixture(scope="module")
def text():
    """The bill of this installation."""
    return bill.as_json(bill.make(None, None, SECONDS))


@pytest.fixture(scope="module")
def document(text):
    return json.loads(text)


@pytest.fixture(scope="module")
def components(document):
    return {component["name"]: component for component in document["components"]}


@pytest.fixture
def copy(tmp_path):
    """A vendored copy of a few files."""
    put(small_tree(), tmp_path / "lib")
    return tmp_path / "lib"


@pytest.fixture
def make(tmp_path):
    """Writes the metadata of a package into the folder ``site``."""

    def execute(name, *headers, version="1.0", points=""):
        info = tmp_path / "site" / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *headers]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        (info / "entry_points.txt").write_text(points)
        return importlib.metadata.PathDistribution(info)

    return execute


@pytest.fixture
def site(make, tmp_path):
    """A folder with packages by the names of those that ours needs, and nothing in them."""
    make("optax_ls", *(f"Requires-Dist: {name}" for name in ("jax", "chex", "numpy")))
    for name in ("jax", "chex", "numpy"):
        make(name)
    return tmp_path / "site"


def properties(component):
    return {x["name"].removeprefix("optax_ls:"): x["value"] for x in component["properties"]}


def error_in(text):
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


# The document.


def test_it_is_valid_by_the_official_schema(text):
    assert error_in(text) is None


def test_the_validator_would_complain(document):
    assert error_in(json.dumps({**document, "components": [{"type": "library"}]})) is not None


def test_it_names_its_format_and_date(document):
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"]["timestamp"].replace("+00:00", "Z") == DATE


def test_it_is_the_same_for_the_same_date(text):
    assert bill.as_json(bill.make(None, None, SECONDS)) == text


def test_it_has_another_number_for_another_date(site):
    now, later = (bill.make(None, site, SECONDS + days * 86400) for days in (0, 1))
    assert now.serial_number != later.serial_number


def test_it_is_about_the_package(document):
    ours = document["metadata"]["component"]
    assert (ours["name"], ours["version"]) == ("optax_ls", optax_ls.__version__)
    assert ours["licenses"][0]["license"]["id"] == "Apache-2.0"
    assert "revision" in properties(ours)


# An installation.


def test_it_lists_what_jax_chex_and_numpy_need(components):
    assert {"jax", "jaxlib", "numpy", "scipy", "ml_dtypes", "opt_einsum", "chex"} <= set(components)


def test_it_lists_nothing_else(components):
    strangers = {"pytest", "optax", "equinox", "matplotlib", "tqdm", "optax_ls", "setuptools"}
    assert not strangers & set(components)


def test_versions_are_those_installed(components):
    assert {name: x["version"] for name, x in components.items()} == {
        name: importlib.metadata.version(name) for name in components
    }


def test_every_component_has_an_spdx_licence_and_an_address(components):
    for name, component in components.items():
        (licence,) = component["licenses"]
        assert licence.get("expression") or licence["license"].get("id"), name
        assert component["purl"].startswith("pkg:pypi/")


def test_installed_packages_have_no_hash_since_their_archives_are_gone(text):
    assert '"hashes"' not in text


def test_dependencies_lead_from_the_package_to_every_component(document):
    graph = {x["ref"]: x.get("dependsOn", []) for x in document["dependencies"]}
    reached, waiting = set(), [document["metadata"]["component"]["bom-ref"]]
    while waiting:
        ref = waiting.pop()
        if ref not in reached:
            reached.add(ref)
            waiting += graph[ref]
    assert reached == set(graph)
    assert len(graph) == len(document["components"]) + 1


def test_installation_in_another_folder(site):
    bom = bill.make(None, site, SECONDS)
    assert (bom.metadata.component.name, bom.metadata.component.version) == ("optax_ls", "1.0")
    assert {component.name for component in bom.components} == {"jax", "chex", "numpy"}


def test_revision_of_an_installation_is_that_of_its_build(site):
    (site / "optax_ls").mkdir()
    (site / "optax_ls" / "_revision.txt").write_text(f"0123abc {SECONDS}\n")
    document = json.loads(bill.as_json(bill.make(None, site, SECONDS)))
    assert properties(document["metadata"]["component"])["revision"] == "0123abc"


def test_folder_without_the_package_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="optax_ls is not installed"):
        bill.make(None, tmp_path, SECONDS)


def test_dependency_without_metadata_is_refused(make, tmp_path):
    make("optax_ls", "Requires-Dist: chex")
    with pytest.raises(SystemExit, match="chex is not installed as a package"):
        bill.make(None, tmp_path / "site", SECONDS)


# A vendored copy.


def test_bill_of_a_copy_says_what_its_record_says(copy):
    text = bill.as_json(bill.make(copy, None, SECONDS))
    assert error_in(text) is None
    ours = json.loads(text)["metadata"]["component"]
    assert (ours["version"], properties(ours)["revision"]) == ("0.1.0", "unknown")
    sums = (copy / "SHA256SUMS").read_bytes()
    assert properties(ours)["SHA-256 of SHA256SUMS"] == hashlib.sha256(sums).hexdigest()
    assert "hashes" not in ours


def test_bill_of_a_copy_lists_what_its_record_requires(copy, components):
    bom = bill.make(copy, None, SECONDS)  # the record of the small tree names jax alone
    only_for_chex = {"chex", "absl-py", "toolz", "typing_extensions"}
    assert {component.name for component in bom.components} == set(components) - only_for_chex


def test_bill_of_a_copy_lists_packages_of_another_folder(copy, site):
    (component,) = bill.make(copy, site, SECONDS).components
    assert (component.name, component.version) == ("jax", "1.0")


def lose_sums(copy):
    (copy / "SHA256SUMS").unlink()


def spoil_sums(copy):
    (copy / "SHA256SUMS").write_text("{")


def change(copy):
    (copy / "__init__.py").write_text("mine")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lose_sums, "SHA256SUMS is missing"),
        (spoil_sums, "line 1 of SHA256SUMS is malformed"),
        (change, "is not as recorded"),
    ],
)
def test_copy_that_is_not_as_recorded_is_refused(copy, damage, said):
    damage(copy)
    with pytest.raises(SystemExit, match=said):
        bill.make(copy, None, SECONDS)


# Wheels.


@pytest.fixture
def wheels(tmp_path):
    """A wheel of ours and one of JAX."""
    paths = []
    for name, more in (("optax_ls", "Requires-Dist: jax\n"), ("jax", "License: Apache-2.0\n")):
        paths.append(tmp_path / f"{name}-1.0-py3-none-any.whl")
        with zipfile.ZipFile(paths[-1], "w") as archive:
            metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{more}"
            archive.writestr(f"{name}-1.0.dist-info/METADATA", metadata)
    return paths


def test_hash_of_a_wheel_is_that_of_the_archive(wheels):
    ours, jax = wheels
    text = bill.as_json(bill.of_wheels(ours, [jax], SECONDS))
    assert error_in(text) is None
    document = json.loads(text)
    for component, wheel in (
        (document["metadata"]["component"], ours),
        (document["components"][0], jax),
    ):
        sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
        assert component["hashes"] == [{"alg": "SHA-256", "content": sha256}]


def test_licences_of_wheels_are_given_by_name(wheels):
    assert dict(bill.spdx_ids(bill.of_wheels(wheels[0], wheels[1:], SECONDS))) == {
        "jax": "Apache-2.0"
    }


def test_wheels_without_one_that_ours_needs_are_refused(wheels):
    with pytest.raises(SystemExit, match="jax is not"):
        bill.of_wheels(wheels[0], [], SECONDS)


# Licences.


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
    assert written_licences(make("one", *headers)) == [licence]


def test_licence_that_is_only_described_is_the_one_that_we_found(make):
    described = make("scipy", "License: Copyright (c)", version="0.1")
    assert written_licences(described) == [
        {"license": {"id": "BSD-3-Clause", "acknowledgement": "concluded"}}
    ]


def test_unknown_licence_is_left_out(make):
    assert written_licences(make("one")) is None


def written_licences(distribution):
    component = bill.component_of(distribution)
    document = json.loads(bill.as_json(bill.bill(component, [], {}, SECONDS)))
    return document["metadata"]["component"].get("licenses")


# Dependencies of dependencies.


def dependencies(folder, *requirements):
    return dict(bill.dependencies(requirements, bill.installed(folder)))


def test_requirements_are_followed_where_their_markers_hold(make, tmp_path):
    make("one", "Requires-Dist: Two.Two[more]>=1", "Requires-Dist: three; extra == 'all'")
    make("two_two", "Requires-Dist: four; extra == 'more'", "Requires-Dist: one")
    make("three")
    make("four", "Requires-Dist: nowhere", "Requires-Dist: three; python_version < '3'")
    found = dependencies(tmp_path / "site", "one")
    assert found == {"four": set(), "one": {"two-two"}, "two-two": {"four", "one"}}


def test_plugins_of_jax_are_followed_with_their_extras(make, tmp_path):
    extra = ["Provides-Extra: with-cuda", 'Requires-Dist: cuda-lib; extra == "with-cuda"']
    make("gpu_plugin", *extra, points="[jax_plugins]\ngpu = gpu_plugin\n")
    make("cuda-lib")
    make("jax")
    found = dependencies(tmp_path / "site", "jax")
    assert found == {"jax": {"gpu-plugin"}, "gpu-plugin": {"cuda-lib"}, "cuda-lib": set()}


# The command.


def test_command_prints_the_bill(site, capsys):
    bill.main(["--packages", str(site)])
    printed = json.loads(capsys.readouterr().out)
    assert {component["name"] for component in printed["components"]} == {"jax", "chex", "numpy"}


def test_command_writes_the_bill_of_a_copy(copy, site, capsys, tmp_path):
    words = ["--copy", copy, "--packages", site, "--output", tmp_path / "bill.json"]
    bill.main([str(word) for word in words])
    assert capsys.readouterr().out == ""
    written = json.loads((tmp_path / "bill.json").read_text())
    assert written["metadata"]["timestamp"].replace("+00:00", "Z") == DATE


def test_bill_that_cannot_be_written_is_reported(site, tmp_path):
    with pytest.raises(SystemExit, match=r"no bill of materials was written: .*No such file"):
        bill.main(["--packages", str(site), "--output", str(tmp_path / "no" / "bill.json")])


def test_date_that_is_no_number_is_refused(site, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "now")
    with pytest.raises(SystemExit, match="SOURCE_DATE_EPOCH must be whole seconds"):
        bill.main(["--packages", str(site)])
