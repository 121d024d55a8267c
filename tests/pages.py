"""Content for tests of the report: plain content, and content in which every text is code."""

import io
from types import SimpleNamespace as Picture
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.errors import clean
from bench.report.answer import Bullet
from bench.report.deviations import Deviation
from bench.report.page.gather import gather
from bench.report.page.page import ClaimCard, Content, Question, Section, render
from bench.report.table import Table
from bench.store import Store

STYLE: dict[Any, Any] = {"svg.fonttype": "path", "svg.hashsalt": "test", "text.parse_math": False}

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>window.pwned = 1</script>",
    "</style><style>*{display:none}</style>",
    '" autofocus onfocus="window.pwned = 1" x="',
    "' onmouseover='window.pwned = 1' x='",
    "</title></svg></caption></table><svg onload=window.pwned=1>",
    "{{ 7 * 7 }}{% raw %}",
    "<!--",
    "&lt;script&gt;",
    "javascript:window.pwned=1",
    "\u202ereversed\x00\x1b[31m",
)


def make_table(
    rows: tuple[tuple[str, ...], ...] = (("k_operators", "4.431 ± 0.020"), ("transformer", "4.350 ± 0.012")),
    columns: tuple[str, ...] = ("arm", "sweep, best"),
    **changes: object,
) -> Table:
    """A table of one column of words."""
    fields = {"experiment": "laptop", "kind": "perplexity", "intro": "Which is better?", "notes": ("Lower is better.",)}
    return Table(columns=columns, rows=rows, **fields | changes)  # type: ignore[arg-type]


def make_drawing(label: str = "arm") -> bytes:
    """An SVG as Matplotlib writes it, with markers, clipping, a hatch, dashes and a legend."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 3))
        axes = figure.subplots()
        axes.plot([1, 2, 3], [3, 1, 2], marker="o", linestyle="--", label=label)
        axes.plot([1, 2, 3], [0, 4, 0], linewidth=9)  # solid, with a sharp corner
        axes.fill_between([1, 2, 3], [2, 0, 1], [4, 2, 3], alpha=0.3)
        axes.bar([1, 2], [1, 2], hatch="//", facecolor="white", edgecolor="0.2")
        axes.set_title(label)
        axes.legend()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def make_content(**changes: object) -> Content:
    """A page with one object of each kind."""
    table = make_table()
    fields: dict[str, object] = {
        "claims": (
            ClaimCard(id="C1", statement="it is so", outcome="reproduced", numbers=("4.43",), at_laptop_size=("5.9",)),
            ClaimCard(id="C2", statement="it is not", outcome="not run", numbers=()),
        ),
        "bullets": (Bullet(question="Which?", short="The second.", numbers="4.431 against 4.350."),),
        "status": ("1 of 2 claims is decided.",),
        "sections": (Section(id="headline", title="Headline", lines=("At laptop size.",), tables=(table,)),),
        "cost": Section(id="cost", title="Cost", tables=(make_table(experiment="throughput", kind="cpu"),)),
        "questions": (Question(name="laptop", text="Which?", state="3 of 3 runs done.", tables=(table,)),),
        "deviations": (Deviation(system="nanoGPT", published="this", ours="that", why="since"),),
        "environment": (make_table(kind="machines"),),
        "notes": (),
        "unread": (),
    }
    return Content(**fields | changes)  # type: ignore[arg-type]


def with_section(**changes: object) -> Content:
    """The same page with other content of its one section: tables, pictures or lines."""
    return make_content(sections=(Section(id="headline", title="Headline", **changes),))  # type: ignore[arg-type]


def pictured() -> Content:
    """A page with two figures."""
    return with_section(
        pictures=tuple(
            Picture(
                name=f"curve-{n}",
                title="Curves",
                caption="n = 3.",
                alt="Two lines fall.",
                svg=make_drawing(),
                narrow=None,
            )
            for n in (1, 2)
        )
    )


def hostile_content(text: str) -> Content:
    """A page with `text` in each place for text from files."""
    table = Table(
        experiment=text,
        kind=text,
        intro=text,
        columns=(text, f"2 {text}"),
        rows=((text, f"4.4 {text}"), (f"b{text}", text)),
        notes=(text,),
    )
    claim = ClaimCard(id=text, statement=text, outcome=text, numbers=(text,), at_laptop_size=(text,))
    drawn = clean(text).encode("latin-1", "replace").decode("latin-1")  # only letters of the font, as in figures
    picture = Picture(name=text, title=text, caption=text, alt=text, svg=make_drawing(drawn), narrow=None)
    return make_content(
        claims=(claim,),
        bullets=(Bullet(question=text, short=text, numbers=text),),
        status=(text,),
        sections=(Section(id="headline", title=text, lines=(text,), tables=(table,), pictures=(picture,)),),  # type: ignore[arg-type]
        cost=Section(id="cost", title=text, tables=(table,)),
        questions=(Question(name=text, text=text, state=text, tables=(table, table)),),
        deviations=(Deviation(system=text, published=text, ours=text, why=text, effect=text),),
        environment=(table,),
        notes=(text,),
        unread=(text,),
    )


def page_of(store: Store) -> bytes:
    """The report of a store."""
    return render(gather(store))
