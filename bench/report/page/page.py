"""The content of the report and its page: self-contained HTML, escaped, under a strict security policy.

The policy is part of the page: nothing is fetched, and no script or style acts but the two whose hashes it names.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.errors import clean
from bench.report.answer import Bullet
from bench.report.deviations import Deviation
from bench.report.figures.drawing import Drawn
from bench.report.table import Table

HERE = Path(__file__).resolve().parent
SYMBOLS = {
    "reproduced": "✓",
    "not reproduced": "✗",
    "inconclusive": "?",
    "pending": "…",
    "not started": "○",
}  # next to the word


@dataclass(frozen=True, kw_only=True)
class ClaimCard:
    """A claim's verdict, in words."""

    id: str
    statement: str
    outcome: str  # a key of SYMBOLS
    numbers: tuple[str, ...]
    at_laptop_size: tuple[str, ...] = ()
    rule: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page before the appendix: what it answers, then its tables and figures."""

    id: str
    title: str
    lines: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Drawn, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Question:
    """An experiment in the appendix: what it asks, how far it is, and what of it no section shows."""

    name: str
    text: str
    state: str
    tables: tuple[Table, ...] = ()
    pictures: tuple[Drawn, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Content:
    """The content of the page: plain text, and the figures as SVG."""

    bullets: tuple[Bullet, ...]  # what came out
    status: tuple[str, ...]  # claims, newest record, machines
    claims: tuple[ClaimCard, ...]
    sections: tuple[Section, ...]  # before the ledger
    cost: Section
    questions: tuple[Question, ...]
    deviations: tuple[Deviation, ...]
    environment: tuple[Table, ...]
    notes: tuple[str, ...]  # on the whole store
    unread: tuple[str, ...]  # files that could not be read, and why
    published: tuple[Table, ...] = ()  # what others published, below the ledger


def render(content: Content) -> bytes:
    """The page, in UTF-8: the same bytes from the same content."""
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    page = _environment().get_template("template.html.j2")
    html = page.render(
        content=content,
        source=_source,
        tally=[(outcome, sum(claim.outcome == outcome for claim in content.claims)) for outcome in SYMBOLS],
        symbols=SYMBOLS,
        # Markup, since they are ours and must be in the page exactly as hashed
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
    )
    return (html.strip() + "\n").encode()


def _environment() -> Environment:
    """Every value is escaped, and made one line without control characters; an unknown name is an error."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else clean(str(value)),
    )
    environment.filters["anchor"] = anchor
    return environment


def anchor(text: str) -> str:
    """Letters that an id or a link's end may hold."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def _source(picture: Drawn) -> str:
    """The drawing as the address of an image: in an image no script runs, and no style or id acts on the page."""
    return "data:image/svg+xml;base64," + base64.b64encode(picture.svg).decode()


def _policy(style: str, script: str) -> str:
    """No external sources; `data:` for the figures and the missing icon."""
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
