"""MkDocs hooks: the pages that are not files of `docs/`, and links as they stand in the repository.

Pages of the API are made of the `__all__` of each public module, which is read without importing
it. Links lead from file to file of the repository, as on a code host; here they become links from
page to page, and a link to a file that is not a page is an error of a strict build.
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = "reference/"
# Page of the site -> file of the repository, and the sections of it; () for the whole file.
PAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "install.md": ("README.md", ("two-commands", "dependencies")),
    "quick_start.md": ("README.md", ("an-example", "serving", "limits")),
    "shell.md": ("README.md", ("from-the-shell",)),
    "changelog.md": ("CHANGELOG.md", ()),
    "contributing.md": ("CONTRIBUTING.md", ()),
    "benchmarks.md": ("benchmarks/README.md", ()),
    "tf_serving.md": ("serving/tf_serving/README.md", ()),
}
TITLES = {
    "install.md": "Install",
    "quick_start.md": "Quick start",
    "shell.md": "From the shell",
}
# Files that pages link to, and that are copied beside them.
COPIED = ("serving/tf_serving/nginx.conf",)
# Where a link to a file leads that is a page under another name.
ALIASES = {"README.md": "index.md"}
# Pages of wide tables and wide code, which are shown without a table of contents.
WIDE = ("comparison.md", "glossary.md", "models.md", "quick_start.md", "shell.md")
# Public modules, in the order of the reference; the first line of each docstring introduces it.
ROOMS = (
    "keras_robust",
    "keras_robust.attacks",
    "keras_robust.threat_models",
    "keras_robust.defenses",
    "keras_robust.training",
    "keras_robust.losses",
    "keras_robust.evaluation",
    "keras_robust.certification",
    "keras_robust.detection",
    "keras_robust.models",
    "keras_robust.data",
    "keras_robust.plots",
    "keras_robust.serving",
)
_FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1`*[ \t]*$", flags=re.DOTALL | re.MULTILINE)
_NAMED = re.compile(r"\[([\w./-]+\.md|docs/[\w/]+/)\](?=\(([^)#\s]+))")
_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?(\))")
_OPTIONS = """
Every defense also takes the options of
[`RobustModelOptions`](keras_robust.training.md#keras_robust.training.RobustModelOptions), and lists
them in its signature (`help(kr.defenses.trades)`).
"""


def source(module: str) -> Path:
    """The file of a module."""
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def public_names(module: str) -> list[str]:
    """The names in `__all__` of a module, without importing it."""
    for node in ast.parse(source(module).read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [*ast.literal_eval(node.value)]
    raise ValueError(f"{module} has no __all__; expected a list of its public names.")


def imports(module: str) -> dict[str, str]:
    """Name -> the full name of what a module imports under it."""
    tree = ast.parse(source(module).read_text("utf-8"))
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def is_module(name: str) -> bool:
    """Whether a full name is that of a module of the package."""
    return source(name).is_file()


def aliased(full: str) -> str:
    """The full name of what a name is another name for, as in `auto_attack = AutoAttack`."""
    module, _, name = full.rpartition(".")
    for node in ast.parse(source(module).read_text("utf-8")).body:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Name):
            continue
        if ast.unparse(node.targets[0]) == name:
            return f"{module}.{node.value.id}"
    return full


def reference_page(room: str) -> str:
    """The page of a public module: a directive of mkdocstrings for each public name."""
    doc = ast.get_docstring(ast.parse(source(room).read_text("utf-8"))) or ""
    blocks = [f"# {room}", doc]
    if room == "keras_robust.defenses":
        blocks.append(_OPTIONS)
    found = imports(room)
    for name in public_names(room):
        full = found.get(name, f"{room}.{name}")
        if full in ROOMS:
            blocks.append(f"## {name} {{ #{room}.{name} }}\n\nSee [`{full}`]({full}.md).")
        elif is_module(full):
            blocks.append(_module(room, name, full))
        else:
            target = aliased(full)
            options = "" if target == full else f"\n    options:\n      heading: {name}"
            blocks.append(f"[](){{ #{room}.{name} }}\n\n::: {target}{options}")
    return "\n\n".join(blocks) + "\n"


def _module(room: str, name: str, full: str) -> str:
    """A public module outside the rooms: its own public functions and classes."""
    tree = ast.parse(source(full).read_text("utf-8"))
    heading = f"## {name} {{ #{room}.{name} }}\n\n{ast.get_docstring(tree) or ''}"
    names = (
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    )
    options = "    options:\n      heading_level: 3"
    return "\n\n".join([heading, *(f"::: {full}.{one}\n{options}" for one in names)])


def reference_index() -> str:
    """The list of all public modules with the first lines of their docstrings."""
    rows = []
    for room in ROOMS:
        doc = ast.get_docstring(ast.parse(source(room).read_text("utf-8"))) or ""
        rows.append(f"| [`{room}`]({room}.md) | {doc.splitlines()[0]} |")
    return "\n".join(["# API", "", "| module | |", "|---|---|", *rows]) + "\n"


def slug(title: str) -> str:
    """The anchor of a heading, as code hosts make it."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def section(text: str, anchor: str) -> str:
    """A section of the second level, with its heading.

    Raises:
        ValueError: the section is missing.
    """
    found = re.split(r"^(?=## )", _masked(text)[0], flags=re.MULTILINE)
    for part in found[1:]:
        if slug(part.splitlines()[0][3:]) == anchor:
            return _unmasked(part, _masked(text)[1])
    raise ValueError(f"The section #{anchor} is missing from README; expected one that it has.")


def _masked(text: str) -> tuple[str, list[str]]:
    """A text whose fenced code is replaced by numbered marks, and the code."""
    code: list[str] = []

    def mask(match: re.Match[str]) -> str:
        code.append(match[0])
        return f"\0{len(code) - 1}\0"

    return _FENCE.sub(mask, text), code


def _unmasked(text: str, code: list[str]) -> str:
    return re.sub(r"\0(\d+)\0", lambda match: code[int(match[1])], text)


def outside_page(uri: str) -> str:
    """The Markdown of a page of `PAGES`."""
    path, anchors = PAGES[uri]
    text = (ROOT / path).read_text("utf-8")
    if not anchors:
        return text
    parts = [section(text, anchor) for anchor in anchors]
    if len(parts) == 1:  # its heading becomes the title
        return parts[0][1:]
    return "\n".join([f"# {TITLES[uri]}\n", *parts])


def origin(uri: str) -> str:
    """The file of the repository that a page is made of."""
    return PAGES[uri][0] if uri in PAGES else f"docs/{uri}"


def destination(path: str, anchor: str = "") -> str:
    """The page of the site that shows a file of the repository; the path itself if none does."""
    name = anchor.lstrip("#")
    for uri, (file, anchors) in PAGES.items():
        if file == path and (not anchors or name in anchors):
            return uri
    if path in ALIASES:
        return ALIASES[path]
    if (ROOT / path).is_dir():  # its overview, else its first page
        pages = sorted((ROOT / path).glob("*.md"), key=lambda page: page.name != "README.md")
        path = posixpath.join(path, pages[0].name if pages else "README.md")
    return path.removeprefix("docs/") if path.startswith("docs/") else path


def title_of(path: str) -> str:
    """The first heading of a Markdown file of the repository; its path if it has none."""
    file = ROOT / path
    found = (
        re.search(r"^# (.+)$", file.read_text("utf-8"), re.MULTILINE) if file.is_file() else None
    )
    return found[1] if found else path


def site_links(text: str, uri: str) -> str:
    """Markdown whose links from file to file are links from page to page, named by their titles."""
    here = posixpath.dirname(origin(uri))

    def named(match: re.Match[str]) -> str:
        return f"[{title_of(posixpath.normpath(posixpath.join(here, match[2])))}]"

    def rewritten(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(here, match[2]))
        target = destination(path, match[3] or "")
        return (
            f"{match[1]}{posixpath.relpath(target, posixpath.dirname(uri) or '.')}{match[3] or ''})"
        )

    masked, code = _masked(text)
    return _unmasked(_LINK.sub(rewritten, _NAMED.sub(named, masked)), code)


def spaced_lists(text: str) -> str:
    """Markdown with an empty line before each list, which code hosts do not need."""
    masked, code = _masked(text)
    spaced = re.sub(r"^(?![-*\d|#> \n])(.+)\n(?=[-*] |\d+\. )", r"\1\n\n", masked, flags=re.M)
    return _unmasked(spaced, code)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are not files of `docs/`."""
    pages = {uri: outside_page(uri) for uri in PAGES}
    pages |= {f"{REFERENCE}{room}.md": reference_page(room) for room in ROOMS}
    pages[f"{REFERENCE}index.md"] = reference_index()
    for uri, text in pages.items():
        files.append(File.generated(config, uri, content=text))
    for path in COPIED:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Adapts the Markdown of code hosts."""
    uri = page.file.src_uri
    if uri == "index.md":
        page.meta["hide"] = ["navigation", "toc"]
    elif uri.startswith("examples/") or uri in WIDE:
        page.meta["hide"] = ["toc"]
    text = markdown if uri.startswith(REFERENCE) else site_links(markdown, uri)
    return spaced_lists(text)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lists the pages of the reference in the navigation, and pages that it does not name."""
    listed = [f"{REFERENCE}index.md", *({room: f"{REFERENCE}{room}.md"} for room in ROOMS)]
    nav = _with_reference(config.nav or [], listed)
    named = set(pages_of(nav))
    for path in sorted(ROOT.glob("docs/**/*.md")):
        uri = path.relative_to(ROOT / "docs").as_posix()
        if uri not in named and not uri.startswith("_site/"):
            _section_for(nav, uri).append(uri)
    config.nav = nav
    return config


def pages_of(nav: list[Any]) -> list[str]:
    """The pages of a navigation."""
    found: list[str] = []
    for entry in nav:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        found += pages_of(value) if isinstance(value, list) else [value]
    return found


def _section_for(nav: list[Any], uri: str) -> list[Any]:
    """The section of the navigation to which a page that it does not name is added."""
    titles = {"results": "Results", "examples": "Examples"}
    title = titles.get(uri.split("/")[0], "Guides")
    return next(entry[title] for entry in nav if isinstance(entry, dict) and title in entry)


def _with_reference(nav: list[Any], listed: list[Any]) -> list[Any]:
    for entry in nav:
        for title, value in entry.items() if isinstance(entry, dict) else ():
            if value == REFERENCE:
                entry[title] = listed
            elif isinstance(value, list):
                _with_reference(value, listed)
    return nav
