"""The rules as registered: their hash follows what they judge by, and nothing else."""

import subprocess
import sys

from bench.report.claims.registered import definitions_reached, rules_sha256
from bench.report.published import PUBLISHED


def test_a_changed_rule_changes_the_hash_and_a_comment_does_not(tmp_path):
    text = PUBLISHED.read_text(encoding="utf-8")

    def hashed(changed: str) -> str:
        path = tmp_path / f"{abs(hash(changed))}.toml"
        path.write_text(changed, encoding="utf-8")
        return rules_sha256(path)

    assert hashed(text) == rules_sha256() == hashed(f"# a comment\n{text}")
    figure = text.replace("perplexity = 4.393", "perplexity = 4.394")
    assert figure != text
    assert hashed(figure) == rules_sha256()
    for old, new in (("margin = 0.02", "margin = 0.05"), ("surely within the margin", "within the margin")):
        assert old in text
        assert hashed(text.replace(old, new, 1)) != rules_sha256()


def test_a_move_a_docstring_or_a_private_name_leaves_the_rules_what_they_are(tmp_path):
    rule = 'import math\n\n\ndef judge(nats: float) -> float:\n    """The rule."""\n    return _square(nats)\n'

    def syntax(text: str) -> list[str]:
        path = tmp_path / "rules.py"
        path.write_text(text)
        return definitions_reached({"judge", "decide"} & set(text.replace("(", " ").split()), [path])

    same = rule.replace("import math", "import cmath").replace("The rule", "Words").replace("_square", "_squared")
    assert syntax(same.replace(": float", "")) == syntax(rule)
    for old, new in (("judge", "decide"), ("_square(nats)", "_square(-nats)"), ("_square(nats)", "square(nats)")):
        assert syntax(rule.replace(old, new)) != syntax(rule)


def test_only_what_a_rule_reaches_counts(tmp_path):
    texts = {
        "rules.py": "def judge(nats):\n    return bound(nats) < LIMIT\n\nLIMIT = 0.02\n\ndef unused():\n    return 1\n",
        "statistics.py": "def bound(values):\n    return _t(values)\n\ndef _t(values):\n    return 2 * values\n\n"
        "def anova():\n    return 3\n",
    }

    def reached(**changed: tuple[str, str]) -> list[str]:
        for name, text in texts.items():
            old, new = changed.get(name.removesuffix(".py"), ("", ""))
            assert old in text
            (tmp_path / name).write_text(text.replace(old, new) if old else text)
        return definitions_reached({"judge"}, [tmp_path / name for name in texts])

    before = reached()
    assert len(before) == 4
    assert reached(rules=("return 1", "return 2")) == reached(statistics=("return 3", "return 4")) == before
    assert reached(statistics=("2 * values", "3 * values")) != before
    assert reached(rules=("0.02", "0.03")) != before


def test_judging_needs_neither_torch_nor_the_models():
    code = (
        "import sys; from pathlib import Path; from bench.report.runs import read_results\n"
        "from bench.report.claims.verdicts import judge; from bench.report.published import PUBLISHED, load_published\n"
        "from bench.store import Store; judge(read_results(Store(Path('results'))), load_published(PUBLISHED))\n"
        "assert not {'torch', 'models'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PUBLISHED.parent.parent)
