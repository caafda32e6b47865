"""Settings of the site, which ``make docs`` builds with Sphinx. Nothing is fetched."""

import hashlib
import os
import re
import sys
from pathlib import Path

import latex2mathml.converter
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.transforms.post_transforms import SphinxPostTransform

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import optax_ls  # noqa: E402 - only now it can be found

project = "optax_ls"
version = release = optax_ls.__version__
project_copyright = "the maintainers of optax_ls, Apache License 2.0"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_static"]

# Pages.
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 4
html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"optax_ls {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

# Reference. Names of other packages have no page here, and this machine may have no network.
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_use_rtype = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
nitpick_ignore_regex = [
    ("py:.*", r"(jax|jnp|chex|numpy|np|typing|collections|matplotlib|scipy|optax)\b.*"),
    # The same without their modules, type variables, and the private parts of states.
    ("py:class", r"Array|ArrayTree|Numeric|SupportsDType|dtype"),
    ("py:class", r"LineSearch|ParamsType|Tree|Best|Progress|_\w+State|optax_ls\._.*"),
]

# Notebooks. Their outputs are kept under build/ until the package or a library changes.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
nb_output_stderr = "remove-warn"
nb_execution_show_tb = True


def digest(files):
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:12]


sources = [*sorted((ROOT / "optax_ls").rglob("*.py")), ROOT / "requirements" / "docs.txt"]
nb_execution_cache_path = str(ROOT / "build" / "notebooks" / digest(sources))
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the same outputs on every machine
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # tqdm, in notebooks without widgets


# Unions that Python writes out in signatures, and the names that the code has for them.
ALIASES = {
    r"Array \| ndarray \| bool \| number \| Iterable\[\w+\] \| Mapping\[Any, \w+\]": "ArrayTree",
    r"Array \| ndarray \| bool \| number \| float \| int": "Numeric",
    r"Callable\[\[Numeric\], Numeric\]": "Schedule",
}


def shorten(app, what, name, obj, options, signature, returned):
    """Writes the names of types without modules, and aliases instead of unions."""
    return short(signature), short(returned)


def short(text):
    text = re.sub(r"~?\b(?:\w+\.)+(?=[A-Za-z_]\w*)", "", text or "") or None
    for union, alias in ALIASES.items():
        text = text and re.sub(union, alias, text)
    return text


# Absolute values without gaps, and upright primes.
SPACING = {
    ">&#x0007C;<": ' lspace="0" rspace="0">&#x0007C;<',
    "<mi>&#x02032;</mi>": "<mo>&#x02032;</mo>",
}


def visit_math(self, node):
    """Writes a formula as MathML, which browsers show without a script or a font of ours."""
    display = "inline" if node.tagname == "math" else "block"
    formula = latex2mathml.converter.convert(node.astext(), display=display)
    for bad, good in SPACING.items():
        formula = formula.replace(bad, good)
    self.body.append(formula if display == "inline" else f'<div class="formula">{formula}</div>')
    raise nodes.SkipNode


# Pages made of files outside docs/, and pages that stand for a folder of the checkout.
PAGES = {
    "README": "index",
    "CHANGELOG": "changelog",
    "CONTRIBUTING": "contributing",
    "SECURITY": "security",
    "benchmarks/README": "benchmarks",
    "benchmarks/RESULTS": "benchmark-results",
}


class LinksToCheckout(SphinxPostTransform):
    """Links to README.md and its like lead to the pages that include them."""

    default_priority = 5  # before MyST resolves links

    def run(self, **kwargs):
        for node in self.document.findall(pending_xref):
            if page := PAGES.get(self.file_of(node)):
                node.update_all_atts({"refdomain": "doc", "reftarget": page}, replace=True)
                node.setdefault("reftargetid", None)

    def file_of(self, node):
        """Returns the file that a link names, without its suffix, relative to the checkout."""
        if node.get("refdomain") == "doc":
            return os.path.relpath(node["reftarget"], ROOT)
        # An included file: its folder is known by the name of the page.
        folder = "benchmarks/" if self.env.docname.startswith("benchmark") else ""
        name = folder + node["reftarget"].removesuffix(".md")
        return name if node["reftarget"].endswith(".md") else None


def setup(app):
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    app.add_post_transform(LinksToCheckout)
    app.connect("autodoc-process-signature", shorten)
    # A change of this file builds all pages again.
    app.add_config_value("digest_of_conf", digest([Path(__file__)]), "env")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
