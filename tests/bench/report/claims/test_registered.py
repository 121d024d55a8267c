"""The rules as registered: their hash follows what they judge by, and nothing else."""

import subprocess
import sys

from bench.report.claims.registered import EARLIER_HASH, ITS_RULES, definitions_of, rules_sha256, same_rules
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
    for old, new in (("margin = 0.02", "margin = 0.05"), ("the upper bound of ours", "the mean of ours")):
        assert old in text
        assert hashed(text.replace(old, new, 1)) != rules_sha256()


def test_a_move_a_docstring_or_a_private_name_leaves_the_rules_what_they_are(tmp_path):
    rule = 'import math\n\n\ndef judge(nats: float) -> float:\n    """The rule."""\n    return _square(nats)\n'

    def syntax(text: str) -> list[str]:
        path = tmp_path / "rules.py"
        path.write_text(text)
        return list(definitions_of(path))

    same = rule.replace("import math", "import cmath").replace("The rule", "Words").replace("_square", "_squared")
    assert syntax(same.replace(": float", "")) == syntax(rule)
    for old, new in (("judge", "decide"), ("_square(nats)", "_square(-nats)"), ("_square(nats)", "square(nats)")):
        assert syntax(rule.replace(old, new)) != syntax(rule)


def test_the_hash_that_early_manifests_carry_is_of_the_rules_as_they_were_then():
    assert same_rules(EARLIER_HASH, ITS_RULES)
    assert not same_rules(EARLIER_HASH, "0" * 64)
    assert not same_rules(None, ITS_RULES)
    assert same_rules("0" * 64, "0" * 64)


def test_judging_needs_neither_torch_nor_the_models():
    code = (
        "import sys; from pathlib import Path; from bench.report.runs import read_results\n"
        "from bench.report.claims.verdicts import judge; from bench.report.published import PUBLISHED, load_published\n"
        "from bench.store import Store; judge(read_results(Store(Path('results'))), load_published(PUBLISHED))\n"
        "assert not {'torch', 'models'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PUBLISHED.parent.parent)
