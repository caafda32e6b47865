"""The output of ``info``."""

import importlib.metadata
import json
import platform
import re

import jax
import pytest

import optax_ls
from optax_ls._tools.cli import main
from optax_ls._tools.info import describe
from optax_ls._tools.vendor.origin import RECORD, VENDORED, Origin, find_origin


@pytest.fixture
def facts(capsys):
    assert main(["info", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["jax", "jaxlib", "numpy", "chex"])
def test_versions_are_those_that_run(facts, name):
    assert facts[name] == importlib.metadata.version(name)


def test_it_reports_version_python_and_platform(facts):
    assert facts["version"] == optax_ls.__version__
    assert facts["python"].endswith(platform.python_version())
    assert facts["platform"].startswith(f"{platform.system()} {platform.release()}")


def test_devices_are_counted(facts):
    assert sum(kind["number"] for kind in facts["devices"]) == jax.device_count()


def test_checkout_has_nothing_to_verify(facts):
    assert (facts["origin"], facts["verified"]) == ("checkout", None)


@pytest.mark.parametrize("x64", [False, True], indirect=True)
def test_x64_is_told(x64):
    assert describe(find_origin())["x64"] is jax.config.jax_enable_x64


def test_spoilt_record_is_told_and_no_error(tmp_path):
    (tmp_path / RECORD).write_text("{")
    facts = describe(Origin(VENDORED, tmp_path))
    assert (facts["revision"], facts["verified"]) == (None, False)


def test_devices_that_cannot_be_used_are_told_in_words(monkeypatch):
    def failing():
        raise RuntimeError("Unable to initialize backend\n'cuda'")

    monkeypatch.setattr(jax, "devices", failing)
    assert describe(find_origin())["devices"] == "none: Unable to initialize backend 'cuda'"


def test_jaxlib_without_metadata_is_unknown(monkeypatch, capsys):
    monkeypatch.setattr(importlib.metadata, "distributions", lambda name: [])
    assert describe(find_origin())["jaxlib"] is None
    assert main(["info"]) == 0
    (line,) = re.findall(r"^jaxlib +(.*)$", capsys.readouterr().out, re.MULTILINE)
    assert line == "unknown"


def test_table_has_a_line_for_each_fact(capsys, facts):
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(facts)
    assert "there is no record" in lines[list(facts).index("verified")]
