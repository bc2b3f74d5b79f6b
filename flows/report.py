"""``mmearth report``: one HTML file about a store and the runs trained on it, with everything inside it.

The packages say what there is to see (``mmearth_data.report``, ``mmearth_train.report``); this module and its
template say how it looks: figure style, fonts, colours for light and dark, pictures as data URIs.
"""

from __future__ import annotations

import base64
import io
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib as mpl
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL.Image import Image

import mmearth_data.report.section as data
import mmearth_train.report.section as training
from mmearth_data.report.pictures import draw
from mmearth_data.report.sections import sections as data_sections
from mmearth_data.store.objects import at, on_disk

Fact: TypeAlias = data.Fact | training.Fact
Section: TypeAlias = data.Section | training.Section

THEME = {"#010203": "var(--ink)", "#040506": "var(--muted)", "#070809": "var(--line)"}
"""Colours that figures draw with and the page replaces by its own, so that they follow light and dark."""
_INK, _MUTED, _LINE = THEME
FIGURE_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": _LINE,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": _MUTED,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.facecolor": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "text.color": _INK,
    "xtick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "xtick.labelsize": 8,
    "ytick.color": _LINE,
    "ytick.labelcolor": _MUTED,
    "ytick.labelsize": 8,
}
"""Matplotlib settings under which every section draws."""

MARKS = {"beats": "good", "fails": "bad", "gains": "good", "loses": "bad", "unclear": "missing", "seen": "missing"}
"""Words that stand out in a table cell."""

_NAMED = 3
"""Failing checks that the verdict names; more are only counted."""


class ReportError(ValueError):
    """The report cannot be written; the message says why and what to do."""


@dataclass(frozen=True)
class ReportConfig:
    """What the report is about and where it goes."""

    store: Path
    """The Zarr store: a directory, s3://bucket/prefix or gs://bucket/prefix."""
    out: Path
    """The HTML file to write."""
    run: tuple[Path, ...] = ()
    """Folders of pretraining runs; their losses, reconstructions and probes are shown where they exist."""


def write_report(config: ReportConfig) -> Path:
    """Write the report about ``config.store`` and its runs to ``config.out``, atomically; returns the file.

    Parts that do not exist yet are named with the command that makes them. Raises ReportError where the store or a
    run folder is not there, or the file cannot be written.
    """
    on_disk(config.out)
    store = at(config.store)
    if not store.is_dir():
        raise ReportError(f"{store} does not exist; make the store with: mmearth collect --store {store}")
    for run in config.run:
        if not run.is_dir():
            raise ReportError(f"{run} does not exist; make the run with: mmearth pretrain --out {run}")
    with mpl.rc_context(FIGURE_STYLE):
        sections: list[Section] = [*data_sections(store), *_training(config)]
        page = render(sections, title=store.name, subtitle=_subtitle(config))
    part = config.out.with_name(f".{config.out.name}.part")
    try:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(page, encoding="utf-8")
        part.replace(config.out)
    except OSError as error:
        raise ReportError(f"{config.out} cannot be written ({error.strerror}); choose another --out") from error
    return config.out


def _training(config: ReportConfig) -> Sequence[Section]:
    """Sections of the runs; without one neither torch nor anything of training is needed."""
    if not config.run:
        command = f"mmearth pretrain --store {at(config.store)} --out RUN"
        missing = training.Fact("Pretraining", "no run", "missing", "none was given with --run")
        note = f"No run was given. Pretrain with: {command}, then write the report with --run RUN."
        return [training.Section("Pretraining", "pretraining", (note,), (missing,))]
    try:
        from mmearth_train.report.sections import sections
    except ModuleNotFoundError as error:
        raise ReportError(f"a report on runs needs {error.name}; install: pip install 'mmearth[train]'") from error
    return sections(config.store, config.run, draw)


def run(config: ReportConfig) -> None:
    """``mmearth report``: write the page and say where it is."""
    sys.stdout.write(f"{write_report(config)}\n")


def _subtitle(config: ReportConfig) -> str:
    runs = ", ".join(str(run) for run in config.run)
    return f"{at(config.store)}" + (f" · {runs}" if runs else "")


def verdict(facts: Sequence[Fact]) -> tuple[str, str]:
    """(state, sentence): bad if any fact is, else missing if any part is, else good."""
    bad = [fact.label.lower() for fact in facts if fact.state == "bad"]
    missing = [fact.label.lower() for fact in facts if fact.state == "missing"]
    judged = sum(fact.state in ("good", "bad") for fact in facts)
    if bad:
        named = f": {', '.join(bad)}" if len(bad) <= _NAMED else ", marked red below"
        return "bad", f"{len(bad)} of {judged} checks need a look{named}"
    if missing:
        return "missing", f"Nothing wrong so far; not made yet: {', '.join(missing)}"
    return "good", f"All {judged} checks pass"


def render(sections: Sequence[Section], title: str, subtitle: str) -> str:
    """The page as one string of HTML that refers to nothing outside itself."""
    environment = Environment(
        loader=PackageLoader("flows", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests.update(
        table=lambda block: isinstance(block, pd.DataFrame),
        chart=lambda block: isinstance(block, Figure),
        picture=lambda block: isinstance(block, Image),
    )
    environment.filters.update(svg=_svg, png=_png, number=_number, columns=_columns)
    environment.globals["marks"] = MARKS
    facts = [(section.anchor, fact) for section in sections for fact in section.facts]
    return environment.get_template("report.html.jinja").render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        facts=facts,
        verdict=verdict([fact for _, fact in facts]),
    )


def _svg(figure: Figure) -> Markup:
    """A figure as inline SVG: themed colours, no fixed size, ids only where something refers to them."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": figure.get_label() or "figure"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue().decode("utf-8")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    referred = set(re.findall(r"#([\w.-]+)[\")]", svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in referred else "", svg)
    width = figure.get_size_inches()[0] * 96
    label = Markup.escape(figure.get_label())
    opening = f'<svg role="img" aria-label="{label}" style="max-width:{width:.0f}px"'
    # Inside HTML, SVG needs no namespaces; without a size of its own it fits the page.
    svg = re.sub(r' (?:width|height)="[\d.]+pt"| xmlns(?::xlink)?="[^"]*"| version="1.1"', "", svg)
    svg = svg.replace("<svg", opening, 1)
    for drawn, themed in THEME.items():
        svg = svg.replace(drawn, themed)
    return Markup(svg)


def _png(image: Image) -> str:
    """A picture as a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _columns(frame: pd.DataFrame) -> list[tuple[str, bool]]:
    """Each column's heading and whether its values are numbers, which stand to the right."""
    return [(str(name), pd.api.types.is_numeric_dtype(dtype)) for name, dtype in frame.dtypes.items()]


def _number(value: Any) -> str:
    """A number as people read it: whole numbers with separators, others to three significant digits."""
    if isinstance(value, float) and math.isnan(value):
        return "–"
    if float(value).is_integer() and not isinstance(value, float):
        return f"{int(value):,}"
    return f"{float(value):,.3g}"
