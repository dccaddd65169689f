"""How Sphinx builds these pages: ``sphinx-build -W docs docs/_build``. Reference pages are read from the installed package."""

from importlib.metadata import version as version_of

project = "DistCI"
author = "the DistCI authors"
version = release = version_of("distci")

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
templates_path: list[str] = []

language = "en"
highlight_language = "none"
html_theme = "alabaster"
html_title = f"DistCI {release}"
html_show_copyright = False
html_theme_options = {"description": "Continuous integration with no master", "page_width": "1100px"}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
add_module_names = False
