"""Formulas as SVG inside the page, drawn while it is built: a reader needs neither a network nor JavaScript."""

import html
import re

import ziamath
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.math import get_node_equation_number

ziamath.config.svg2 = False  # Safari and mail readers know SVG 1 alone
_SIZE = 17.0  # of the letters, in pixels: as high as the text beside them
# TeX sets a thin space between the name of a function and a letter that follows it
_FUNCTION = re.compile(
    r"(\\(?:log|exp|det|tanh|cos|sin|max|min|dim|ker|mathrm\{tr\}))\s+(?=[A-Za-z]|\\(?!left|big|,|;))"
)


def svg(tex: str, *, display: bool) -> str:
    """The formula as SVG; its TeX is the text for those who cannot see it."""
    drawing = ziamath.Latex(_FUNCTION.sub(r"\1\\,", tex), size=_SIZE, inline=not display, color="currentColor")
    label = html.escape(" ".join(tex.split()))
    style = f"vertical-align:{drawing.getyofst():.2f}px"
    return drawing.svg().replace("<svg ", f'<svg role="img" aria-label="{label}" style="{style}" ', 1)


def visit_math(self, node: nodes.math) -> None:
    self.body.append(self.starttag(node, "span", "", CLASS="math notranslate nohighlight"))
    self.body.append(svg(node.astext(), display=False) + "</span>")
    raise nodes.SkipNode


def visit_displaymath(self, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", "", CLASS="math notranslate nohighlight"))
    if node["number"]:
        number = get_node_equation_number(self, node)
        self.body.append(f'<span class="eqno">({number})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append(svg(node.astext(), display=True) + "</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("svg", (visit_math, None), (visit_displaymath, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
