"""The plain name of what an arm trains, by its config: `Transformer, rotary` and not `transformer_rotary`."""

from typing import Any

from bench.report.arms import config_of, principal
from bench.report.runs import CellResults, Results

K_OPERATORS = "K-Operators"
PLAIN_TRANSFORMER = "Transformer"
FAMILIES = (  # in the order of legends
    K_OPERATORS,
    PLAIN_TRANSFORMER,
    "Transformer, rotary",
    "Transformer, modern",
    "Transformer, no positions",
    "nanoGPT",
    "nanoGPT, recipe of 2023",
    "LSTM",
    "n-gram counts",
    "other",
)


def family_of(config: dict[str, Any]) -> str:
    """One of FAMILIES, by the config of a record. A variant of K-Operators is of their family.

    nanoGPT is the Transformer with the published width of 384.
    """
    model = config.get("model") or {}
    match config.get("architecture"):
        case "k_operators":
            return K_OPERATORS
        case "lstm":
            return "LSTM"
        case "ngram" | "kneser_ney":
            return "n-gram counts"
        case "transformer":
            return _transformer(model)
    return "other"


def name_of(config: dict[str, Any]) -> str:
    """The plain name of one arm: its family, and of counts their order."""
    if config.get("architecture") in ("ngram", "kneser_ney"):
        return f"{config['model'].get('order', 'n')}-gram counts"
    return family_of(config)


EQUAL = {"live": "equal live parameters", "flops": "equal FLOPs"}  # what arms of these labels share with K-Operators


def arm_name(cell: CellResults) -> str:
    """`name_of`, with what is held equal where that is not all parameters: `Transformer, equal FLOPs`."""
    return ", ".join(filter(None, (name_of(config_of(cell)), EQUAL.get(cell.label.rpartition("-")[2]))))


def _transformer(model: dict[str, Any]) -> str:
    if model.get("norm") == "rms":
        return "Transformer, modern"
    if model.get("d_model") == 384:
        return "nanoGPT, recipe of 2023" if model.get("mlp") == "gelu_tanh" else "nanoGPT"
    by_position = {"rotary": "Transformer, rotary", "none": "Transformer, no positions"}
    return by_position.get(str(model.get("position")), PLAIN_TRANSFORMER)


def headline(experiment: Results) -> dict[str, CellResults]:
    """The first trained arm of each family, in the order of FAMILIES; of K-Operators the full model."""
    found: dict[str, CellResults] = {}
    for cell in principal(experiment):
        found.setdefault(family_of(config_of(cell)), cell)
    return {family: found[family] for family in FAMILIES if family in found}


def arm_names(experiment: Results) -> dict[str, str]:
    """The name of each arm with a record, by its label: of the first arm of a family and of those of equal budgets the
    plain one, of others the label.
    """
    first = {cell.label: family for family, cell in headline(experiment).items()}
    equal = {cell.label: arm_name(cell) for cell in principal(experiment) if cell.label.rpartition("-")[2] in EQUAL}
    return {one.label: (first | equal).get(one.label, one.label) for one in experiment.cells if one.records}


def searched(experiment: Results) -> dict[str, list[CellResults]]:
    """The trials with a record by arm: of the first arm of a family by its name, of others by their label."""
    found: dict[str, list[CellResults]] = {}
    for arm, cells in experiment.trials.items():
        if ended := [cell for cell in cells if cell.records]:
            family = family_of(config_of(ended[0]))
            found[arm if family in found else family] = ended
    return found
