"""Settings of Sphinx for `make docs`. Nothing is fetched, and every warning is an error."""

import ast
import inspect
import sys
import typing
from importlib.metadata import version as version_of
from types import NoneType

import attrs
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.environment import BuildEnvironment
from sphinx.ext import napoleon
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.nodes import make_refnode
from sphinx.util.typing import stringify_annotation

import sms4sats_async
from sms4sats_async import progress, simulator, wallets

project = "sms4sats-async"
release = version_of(project)

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = True
# No page of another project is linked to, because that would take its index from the network.
nitpick_ignore_regex = [("py:.*", r"(collections|contextlib|datetime|httpx|os|typing)\..*")]

# --- the pages ------------------------------------------------------------------------------------

html_theme = "furo"
pygments_dark_style = "github-dark"  # furo's own choice underlines what is imported
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["page.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
myst_heading_anchors = 3
toc_object_entries_show_parents = "hide"

# --- the docstrings -------------------------------------------------------------------------------

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
# `name` in a docstring is a link if something has that name, else it is code.
default_role = "py:obj"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = True

# The library makes objects of all other classes, so their signatures are not shown.
MADE_BY_USERS = {
    sms4sats_async.Sms4SatsClient,
    sms4sats_async.RetryPolicy,
    sms4sats_async.OrderScheduler,
    sms4sats_async.MemoryJournal,
    sms4sats_async.SqliteJournal,
    progress.Progress,
    simulator.Behaviour,
    simulator.ManualClock,
    simulator.ScaledClock,
    simulator.Simulator,
    wallets.LndWallet,
    wallets.ClnWallet,
    wallets.LnbitsWallet,
    wallets.PhoenixdWallet,
    wallets.NwcWallet,
}


# Where to find a name between backticks, first to last.
NAMESPACES = (
    "sms4sats_async",
    "sms4sats_async.Sms4SatsClient",
    "sms4sats_async.progress",
    "sms4sats_async.simulator",
    "sms4sats_async.testing",
    "sms4sats_async.wallets",
)


class Docstring(GoogleDocstring):
    """A docstring without types, since the annotations have them.

    A colon in its text is therefore a colon; napoleon would read what precedes it as a type.
    """

    def _consume_returns_section(
        self,
        preprocess_types: bool = False,  # noqa: ARG002, FBT001, FBT002 - napoleon's signature
    ) -> list[tuple[str, str, list[str]]]:
        lines = self._dedent(self._consume_to_next_section())
        return [("", "", lines)] if lines else []

    def _consume_inline_attribute(self) -> tuple[str, list[str]]:
        return "", self._consume_to_end()

    def _lookup_annotation(self, name: str) -> str:
        kind = self._obj
        hints = typing.get_type_hints(kind)
        if isinstance(kind, type) and issubclass(kind, BaseException):
            hints |= typing.get_type_hints(kind.__init__)  # an error has what it is made with
        return stringify_annotation(hints[name], "smart") if name in hints else ""


def made_with(kind: type[attrs.AttrsInstance]) -> str:
    """Return the arguments of an attrs class, whose `__init__` has no source to read."""
    fields = attrs.fields(kind)
    star = ["*"] if any(field.kw_only for field in fields) else []
    return f"({', '.join([*star, *(f'{field.name}={field.default!r}' for field in fields)])})"


def show_signature(
    _app: Sphinx,
    _what: str,
    _name: str,
    thing: object,
    _options: object,
    arguments: str | None,
    _returned: str | None,
) -> tuple[str, str | None] | None:
    """Show the arguments of a class only if users make it, and what a call returns."""
    if not arguments:
        return None
    if isinstance(thing, type):
        if thing not in MADE_BY_USERS:
            return "", None
        return (made_with(thing) if attrs.has(thing) else arguments), None
    returned = typing.get_type_hints(thing).get("return", NoneType)
    return arguments, None if returned is NoneType else stringify_annotation(returned, "smart")


def drop_return_type(_app: Sphinx, _domain: str, _kind: str, content: nodes.Element) -> None:
    """Remove the return type, which is in the signature already."""
    for field in list(content.findall(nodes.field)):
        if field[0].astext() == "rtype":
            field.parent.remove(field)


def link_or_code(
    _app: Sphinx, _env: BuildEnvironment, reference: pending_xref, shown: nodes.Element
) -> nodes.Element | None:
    """Return text between backticks that names nothing as code."""
    return shown if reference["reftype"] == "obj" else None


def link_names(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Make a link of every `name` on a page that the reference describes."""
    described = app.env.domains.python_domain.objects
    for code in list(tree.findall(nodes.literal)):
        if isinstance(code.parent, nodes.reference | nodes.title):
            continue
        name = code.astext().partition("(")[0]
        # Of an attribute, which has no entry of its own, the class.
        wanted = [
            f"{namespace}.{each}"
            for each in (name, name.rpartition(".")[0])
            for namespace in NAMESPACES
        ]
        if found := next((each for each in wanted if each in described), None):
            to = described[found]
            code.replace_self(
                make_refnode(app.builder, page, to.docname, to.node_id, code.deepcopy(), found)
            )


def label_cells(_app: Sphinx, tree: nodes.document) -> None:
    """Put the heading of its column into every cell but a row's first; only phones show it.

    A phone shows the cells of a row below each other, because a wide table would not fit.
    """
    for table in tree.findall(nodes.table):
        head = next(table.findall(nodes.thead), None)
        if head is None:
            continue
        labels = [entry.astext() for entry in head.findall(nodes.entry)]
        for row in next(table.findall(nodes.tbody)).findall(nodes.row):
            for label, cell in list(zip(labels, row.children, strict=True))[1:]:
                if isinstance(cell, nodes.entry) and cell.astext():
                    cell.insert(0, nodes.paragraph("", label, classes=["label"]))


def import_for_types() -> None:
    """Import what modules import for type checkers alone, so that annotations can be read."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == sms4sats_async.__name__:
            for node in ast.parse(inspect.getsource(module)).body:
                if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                    imports = ast.Module(node.body, type_ignores=[])
                    exec(compile(imports, name, "exec"), vars(module))  # noqa: S102 - our own source
    # Sphinx reads the annotations of a class as they are, text or not.
    for kind in MADE_BY_USERS:
        if not attrs.has(kind):
            kind.__init__.__annotations__ = typing.get_type_hints(kind.__init__)


def read_constants() -> None:
    """Let autodoc find the docstrings of constants, which are where each is defined."""
    package = ModuleAnalyzer.for_module(sms4sats_async.__name__)
    package.analyze()
    for module in ("_orders.decisions", "client"):
        analyzer = ModuleAnalyzer.for_module(f"{sms4sats_async.__name__}.{module}")
        analyzer.analyze()
        for (scope, name), lines in analyzer.attr_docs.items():
            if not scope and name in sms4sats_async.__all__:
                package.attr_docs[scope, name] = lines


def setup(app: Sphinx) -> None:
    """Connect the functions above to Sphinx."""
    napoleon.GoogleDocstring = Docstring
    (attributes,) = (field for field in PyObject.doc_field_types if field.name == "variable")
    attributes.label = "Attributes"
    import_for_types()
    read_constants()
    app.connect("autodoc-process-signature", show_signature)
    # After autodoc has added the types (500).
    app.connect("object-description-transform", drop_return_type, priority=600)
    app.connect("missing-reference", link_or_code)
    app.connect("doctree-read", label_cells)
    app.connect("doctree-resolved", link_names)
