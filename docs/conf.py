"""The documentation site.

`python -m sphinx -W --keep-going -c docs . build/site`, run in the repository's folder, builds it. That folder is the
source, so that links between documents are the same on the site as in the repository
(docs/decisions/0021-site.md).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))
from softnll import __version__

project = "softnll"
author = "The softnll authors"
copyright = author  # noqa: A001 - Sphinx's name
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_copybutton",
    "commands",
    "interactive_page",
    "mathml",
]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "docs/**/*.md",
    "docs/tutorial.ipynb",
    "benchmarks/results/*.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
exclude_patterns = [".venv*", "build", "dist", "**/.*"]
smartquotes = False  # "--scores" is an option, not a dash
show_warning_types = True

# Pages in MyST's Markdown. A notebook shows its committed outputs, which tests/package/test_tutorial.py computes anew.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"
html_math_renderer = "mathml"

# The API from its docstrings.
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give shapes and types
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "furo"
html_title = "softnll"
html_static_path = ["_static"]
html_css_files = ["site.css"]
templates_path = ["_templates"]
html_additional_pages = {"index": "to_first_page.jinja"}
html_show_sourcelink = False
html_show_sphinx = False
html_copy_source = False
copybutton_exclude = ".linenos, .gp, .go"
