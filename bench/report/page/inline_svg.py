"""A drawn SVG made fit for the body of a page: no style sheet, no foreign name, no id that another figure has.

A strict content security policy blocks `style` in every form, so what Matplotlib writes as styles becomes presentation
attributes, which look the same and are no styles.
"""

import re
import xml.etree.ElementTree as ElementTree

SHAPES = ("path", "use", "rect", "circle", "ellipse", "line", "polyline", "polygon", "text", "tspan", "image")
FRAMES = ("svg", "g", "defs", "clipPath", "pattern", "linearGradient", "radialGradient", "stop")
ELEMENTS = frozenset((*SHAPES, *FRAMES))
DROPPED = frozenset(("metadata", "style", "title", "desc"))
INHERITED = {"stroke-linejoin": "round", "stroke-linecap": "butt"}  # what Matplotlib's own <style> says of everything
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_OUTSIDE = re.compile(r"url\((?!#)")


class UnknownSvgError(ValueError):
    """A drawing holds what has no place in a page, such as a script."""


def inline_svg(drawing: bytes, *, prefix: str, title: str, description: str) -> str:
    """The drawing as one <svg> element whose ids start with `prefix`, named and described for a screen reader."""
    old = ElementTree.fromstring(drawing)
    new = _converted(old, prefix)
    new.attrib |= INHERITED | {
        "role": "img",
        "aria-labelledby": f"{prefix}-title {prefix}-description",
    }
    for name, text in (("description", description), ("title", title)):
        told = ElementTree.Element("title" if name == "title" else "desc", {"id": f"{prefix}-{name}"})
        told.text = text
        new.insert(0, told)
    return ElementTree.tostring(new, encoding="unicode")


def _converted(old: ElementTree.Element, prefix: str) -> ElementTree.Element:
    name = _local(old.tag)
    if name not in ELEMENTS:
        raise UnknownSvgError(f"a figure holds an element <{name[:40]}>, which has no place in the report")
    new = ElementTree.Element(name)
    new.text = old.text if name in ("text", "tspan") else None  # elsewhere it is the space between elements
    for key, value in old.attrib.items():
        for attribute, plain in _presentation(value) if key == "style" else [(_local(key), value)]:
            new.set(attribute, _attribute(attribute, plain, prefix))
    new.extend([_converted(child, prefix) for child in old if _local(child.tag) not in DROPPED])
    return new


def _presentation(style: str) -> list[tuple[str, str]]:
    """The declarations of a `style` attribute, each as an attribute of its own."""
    pairs = (declaration.partition(":") for declaration in style.split(";") if declaration.strip())
    return [(name.strip(), value.strip()) for name, _, value in pairs]


def _attribute(name: str, value: str, prefix: str) -> str:
    """The value with each reference to an id leading to the prefixed one."""
    if name.startswith("on"):
        raise UnknownSvgError(f"a figure holds an attribute {name[:40]}, which has no place in the report")
    if name == "id":
        return f"{prefix}-{value}"
    if name == "href":
        if not value.startswith(("#", "data:image/png;base64,")):
            raise UnknownSvgError(f"a figure refers to {value[:40]}, which lies outside it")
        return f"#{prefix}-{value[1:]}" if value.startswith("#") else value
    if _OUTSIDE.search(value):
        raise UnknownSvgError(f"a figure refers to {value[:40]}, which lies outside it")
    return _REFERENCE.sub(rf"url(#{prefix}-\1)", " ".join(value.split()))


def _local(name: str) -> str:
    """A name without its namespace, as HTML writes it."""
    return name.rpartition("}")[2]
