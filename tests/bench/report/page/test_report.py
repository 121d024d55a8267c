"""The report is a function of the records, says what they say, and holds no word that could act as code."""

import base64
import hashlib
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from bench.app import app
from bench.errors import clean
from bench.record import Record
from bench.report.deviations import DEVIATIONS, DeviationsError, load_deviations
from bench.report.page.gather import gather
from bench.report.page.page import anchor, render
from bench.store import Store
from tests.command_line import call
from tests.pages import HOSTILE, hostile_content, make_content, page_of, pictured
from tests.records import make_record, manifest_of
from tests.stores import make_store

ROOT = Path(__file__).parents[4]
A_PATH = re.compile(r"/(?:root|home|tmp|work|Users)/")
# attributes that fetch or style
ATTRIBUTES = {"action", "background", "formaction", "ping", "poster", "srcdoc", "srcset", "style"}


class Page(HTMLParser):
    """A page as a parser sees it: its tags with their attributes, its text, and what stands in script and style."""

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.blocks: dict[str, list[str]] = {"script": [], "style": []}
        self._inside = ""
        self.feed(page.decode())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag in self.blocks:
            self.blocks[tag].append("")

    def handle_data(self, data):
        if self._inside in self.blocks:
            self.blocks[self._inside][-1] += data
        else:
            self.text.append(data)

    def handle_endtag(self, tag):
        self._inside = ""

    def attribute(self, name: str) -> list[str]:
        return [value or "" for _, attributes in self.tags for key, value in attributes.items() if key == name]


def two_arms() -> list[Record]:
    arms = {"k_operators": 4.4, "transformer": 4.3}
    return [make_record(label, seed, value + seed / 100) for label, value in arms.items() for seed in range(3)]


def compared(root: Path, records: list[Record] | None = None) -> Store:
    """A store of both arms, one of them the reference."""
    records = records or two_arms()
    return make_store(root, records, manifest_of(records, reference="transformer"))


# one page, from the records alone ------------------------------------------------------------------------------------


def test_the_same_records_give_the_same_bytes_wherever_the_store_lies(tmp_path, monkeypatch):
    store = compared(tmp_path / "one" / "store")
    (store.root / "runs" / "cut.json").write_bytes(b"{")
    page = page_of(store)
    shutil.copytree(store.root, tmp_path / "other")
    assert page_of(Store(tmp_path / "other")) == page
    monkeypatch.chdir(store.root.parent)
    assert page_of(Store(Path("store"))) == page


def test_the_page_tells_neither_a_path_nor_a_time_of_its_making(tmp_path):
    store = make_store(tmp_path, two_arms())
    (store.root / "runs" / "cut.json").write_bytes(b"{")
    page = page_of(store).decode()
    assert not A_PATH.search(page)
    assert str(tmp_path) not in page
    assert not re.search(r"\d\d:\d\d:\d\d", page)
    assert "runs/cut.json" in page  # unreadable files are named


def test_a_store_without_experiments_has_a_page_that_says_so(tmp_path):
    page = "".join(Page(page_of(Store(tmp_path))).text)
    assert page.count("Not run yet.") == 2
    assert "Of the preprint's 10 claims: 0 decided" in page


def test_a_section_shows_what_is_done_and_names_what_is_not(tmp_path):
    records = two_arms()
    store = compared(tmp_path / "laptop")
    sections = {one.id: one for one in gather(store).sections}
    assert [table.name for table in sections["laptop"].tables] == ["laptop-results"]
    assert sections["laptop"].lines == ("Not run yet: laptop-all.",)  # which it stands in for
    assert sections["size"].lines == ("Not run yet: paper, matched.",)
    store.write_manifest(manifest_of(records, "laptop-all", reference="transformer"))
    sections = {one.id: one for one in gather(store).sections}
    assert [table.experiment for table in sections["laptop"].tables] == ["laptop-all"]


def test_the_appendix_repeats_nothing_of_the_sections(tmp_path):
    content = gather(compared(tmp_path))
    parts = (*content.sections, content.cost, *content.questions)
    names = [(type(each), each.name) for one in parts for each in (*one.tables, *one.pictures)]
    assert len(set(names)) == len(names)
    assert {"laptop-results", "laptop-perplexity", "laptop-differences"} <= {name for _, name in names}


def test_half_a_grid_says_so(tmp_path):
    records = two_arms()
    store = make_store(tmp_path, records[:4], manifest_of(records))
    assert gather(store).questions[0].state == "4 of 6 runs done; 2 missing."


def test_cost_counts_failed_runs_and_a_shared_run_once(tmp_path):
    records = [*two_arms(), make_record("k_operators", 7, status="diverged")]  # 7 runs of 100 s
    store = make_store(tmp_path, records)
    store.write_manifest(manifest_of(records[:3], "paper"))
    (cost,) = [table for table in gather(store).cost.tables if table.kind == "cost"]
    assert cost.rows == (
        ("paper", "Plain CPU", "3", "0", "0.08", "6,000,000", "1.05e+13"),  # 300 s
        ("laptop", "Plain CPU", "7", "1", "0.19", "14,000,000", "2.45e+13"),  # 700 s
    )
    assert "Each counted once: 7 runs, 0.19 hours of training" in cost.notes[1]


def test_the_environment_counts_runs_by_machine_and_by_commit(tmp_path):
    machines, commits = gather(make_store(tmp_path, two_arms())).environment
    assert (machines.rows[0][0], machines.rows[0][-1]) == ("Plain CPU", "6")
    assert commits.rows == (("a1b2c3d", "as committed", "tinyshakespeare", "sha of tinys", "laptop", "6"),)


def test_the_command_writes_the_page_and_fails_where_a_record_could_not_be_read(tmp_path, capsys):
    store = make_store(tmp_path, two_arms())
    assert call(app, "report", "--store", tmp_path) == 0
    assert (tmp_path / "report.html").read_bytes() == page_of(store)
    (tmp_path / "runs" / "cut.json").write_bytes(b"{")
    assert call(app, "report", "--store", tmp_path) == 1
    assert "cut.json" in capsys.readouterr().err
    assert b"cut.json" in (tmp_path / "report.html").read_bytes()


# nothing acts --------------------------------------------------------------------------------------------------------


def shape(page: bytes) -> list[tuple[str, tuple[str, ...]]]:
    return [(tag, tuple(attributes)) for tag, attributes in Page(page).tags]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_word_from_a_file_becomes_a_tag_or_an_attribute(text):
    page = render(hostile_content(text))
    assert shape(page) == shape(render(hostile_content("plain")))
    if clean(text) and "\x00" not in text:
        assert Page(page).text.count(clean(text)) >= 20  # and each is there to be read, as it is


@pytest.mark.parametrize("content", [make_content(), hostile_content(HOSTILE[0])], ids=["plain", "hostile"])
def test_the_page_refers_to_nothing_outside_itself(content):
    page = Page(render(content))
    assert all(
        link.startswith(("#", "data:,", "data:image/svg+xml;base64,"))
        for name in ("href", "src", "xlink:href")
        for link in page.attribute(name)
    )
    names = {name for _, attributes in page.tags for name in attributes}
    assert not names & ATTRIBUTES
    assert not [name for name in names if name.startswith("on")]
    assert "url(" not in page.blocks["style"][0]
    assert "@import" not in page.blocks["style"][0]


def test_the_policy_allows_the_pages_own_script_and_style_and_nothing_else():
    page = Page(render(make_content()))
    (policy,) = [value for value in page.attribute("content") if "default-src" in value]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for kind in ("script", "style"):
        (block,) = page.blocks[kind]
        digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"
    assert "unsafe" not in policy


# a reader without a mouse, or without eyes ---------------------------------------------------------------------------


def test_headings_are_in_order_and_ids_are_unique():
    page = Page(render(make_content()))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = page.attribute("id")
    assert len(set(ids)) == len(ids)
    assert {link[1:] for link in page.attribute("href") if link.startswith("#")} <= set(ids)
    assert {name for value in page.attribute("aria-labelledby") for name in value.split()} <= set(ids)


def test_every_table_has_a_caption_and_every_region_and_figure_a_name():
    page = Page(render(make_content()))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("caption") == tags.count("table") > 0
    for tag, attributes in page.tags:
        if attributes.get("role") in ("region", "img"):
            assert attributes.get("aria-label") or attributes.get("aria-labelledby"), tag
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert images == []
    images = [attributes for tag, attributes in Page(render(pictured())).tags if tag == "img"]
    assert [one["alt"] for one in images] == ["Curves Two lines fall."] * 2
    assert all(one["src"].startswith("data:image/svg+xml;base64,") for one in images)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("theme", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_has_the_contrast_that_wcag_aa_asks_for(theme):
    css = (ROOT / "bench" / "report" / "page" / "style.css").read_text()
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", re.findall(r":root \{(.*?)\}", css, re.DOTALL)[theme]))
    pairs = [(text, ground) for text in ("text", "muted", "link") for ground in ("page", "panel")]
    for text, ground in [*pairs, *((f"{name}-text", name) for name in ("good", "bad", "open", "none"))]:
        lighter, darker = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (text, ground)


# deviations ----------------------------------------------------------------------------------------------------------


def test_the_committed_deviations_are_in_the_page():
    deviations = load_deviations()
    assert len(deviations) >= 10
    text = Page(render(make_content(deviations=deviations))).text
    assert all(deviation.published in text and deviation.ours in text for deviation in deviations)


@pytest.mark.parametrize("content", [b"\xff", b"deviation = 1", b"[[deviation]]\nsystem = 'x'", b"[[deviation"])
def test_a_broken_file_of_deviations_is_named(content, tmp_path):
    path = tmp_path / DEVIATIONS.name
    path.write_bytes(content)
    with pytest.raises(DeviationsError, match=re.escape(str(path))):
        load_deviations(path)
    path.unlink()
    with pytest.raises(DeviationsError, match="cannot be read"):
        load_deviations(path)


def test_an_anchor_is_a_plain_word():
    assert anchor('C1 "x" <y>') == "c1-x-y"


def test_a_page_without_notes_has_no_such_section():
    assert "Notes on the store" not in render(make_content()).decode()
    assert "Notes on the store" in render(make_content(notes=("one",))).decode()
