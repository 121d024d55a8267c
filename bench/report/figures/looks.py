"""The colour and the marker of each family, the same in every figure; all read on white and on #0d1117."""

from typing import Any

from matplotlib.colors import LinearSegmentedColormap, to_hex

from bench.report.families import FAMILIES

INK = "#757c86"  # letters, axes and what belongs to no family
BACKGROUNDS = ("#ffffff", "#0d1117")  # of the page and of GitHub, light and dark
LOOKS = (  # of colour, marker and dashes; the first ones are those of FAMILIES, in their order
    ("#d9540f", "o", "-"),
    ("#3a7fd5", "s", "--"),
    ("#128c99", "^", "-."),
    ("#9467d6", "D", ":"),
    ("#b0675a", "v", (0, (6, 1.5, 1, 1.5, 1, 1.5))),
    ("#2b924a", "P", (0, (3, 1))),
    ("#9a7c00", "X", (0, (8, 2))),
    ("#d14a88", "p", (0, (5, 1, 1, 1))),
    (INK, "d", (0, (1, 2))),
    (INK, "h", "-"),
)
HOLLOW: dict[str, Any] = {"markerfacecolor": "none"}
PUBLISHED: dict[str, Any] = {"color": INK, "markersize": 8, "linestyle": "none"} | HOLLOW
OUTCOMES = {"reproduced": "#2b924a", "not reproduced": "#d9540f", "inconclusive": "#3a7fd5"}  # of others: INK
_LAYERS = LinearSegmentedColormap.from_list("layers", ["#4f7fe0", "#a463c4", "#d4527a", "#c0701a"])


def line_style(index: int) -> dict[str, Any]:
    """Of the line of this index, where lines are of no family; after the last of LOOKS they come again."""
    color, marker, dashes = LOOKS[index % len(LOOKS)]
    return {"color": color, "marker": marker, "linestyle": dashes}


def of_family(family: str) -> dict[str, Any]:
    """Of the lines and points of a family."""
    return line_style(FAMILIES.index(family))


def of_layers(n: int) -> list[str]:
    """A colour for each of `n` layers, in a sequence."""
    return [to_hex(_LAYERS(layer / max(n - 1, 1))) for layer in range(n)]
