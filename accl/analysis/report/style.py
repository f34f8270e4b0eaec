"""The style sheet of a report: light and dark as the reader's system has it, and light on paper."""

from __future__ import annotations

_LIGHT = """
--page:#fcfcfb;--text:#1c232d;--grey:#4a5564;--rule:#d5dae1;--panel:#f1f2f4;--warn:#9a3a1b;--others:#b9c1cc;--none:#e9ebee;
--a0:#3c4652;--a1:#b8500a;--a2:#0b68a0;--a3:#0c7151;--a4:#9f4079;--a5:#726300;--a6:#3758cf;--a7:#7440b5;
--less:#0b68a0;--more:#c26a00;--same:#f1f2f4;
"""
_DARK = """
--page:#0f1218;--text:#d5dbe5;--grey:#9aa5b6;--rule:#313b49;--panel:#1a202b;--warn:#f0795b;--others:#4b5768;--none:#1d2430;
--a0:#c3cad4;--a1:#f2a93b;--a2:#5cb8e6;--a3:#35bd94;--a4:#dd8fbd;--a5:#f2e863;--a6:#8aa7ff;--a7:#b58ce8;
--less:#5cb8e6;--more:#f2a93b;--same:#1d2430;
"""
# Cividis (Nunez, Anderton and Renslow) in eleven steps: lighter from low to high, also in grey.
_CIVIDIS = "00224e 083370 35456c 4f576c 666970 7d7c78 948e77 aea371 c8b866 e5cf52 fee838"
_HEAT = "".join(f".h{level}{{fill:#{colour}}}" for level, colour in enumerate(_CIVIDIS.split(" ")))
# From less over as much to more: so much of either colour, the rest that of no difference.
_DIVERGING = "".join(
    f".d{level}{{fill:color-mix(in srgb,var(--{'less' if level < 5 else 'more'}) {abs(level - 5) * 20}%,var(--same))}}"
    for level in range(11)
)
_ARMS = "".join(f".a{i}{{--arm:var(--a{i})}}" for i in range(8))

STYLE = f"""
:root{{color-scheme:light dark;{_LIGHT}}}
@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}
*{{box-sizing:border-box}}
body{{margin:0 auto;padding:1.5rem;max-width:1060px;background:var(--page);color:var(--text);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}}
h1{{font-size:1.7rem;margin:.2rem 0;overflow-wrap:anywhere}}h2{{font-size:1.3rem;margin:2rem 0 .3rem}}
h3{{font-size:1.1rem;margin:1.8rem 0 .4rem;border-bottom:1px solid var(--rule);padding-bottom:.2rem}}
h4{{font-size:.95rem;margin:1rem 0 .2rem}}p{{margin:.4rem 0;max-width:75ch}}
.lead,figcaption,.notes,footer{{color:var(--grey)}}figcaption,.notes,footer{{font-size:.87rem}}
nav a{{margin-right:1.1em;color:var(--a2)}}
.warn{{color:var(--warn)}}.warn::before{{content:"\\26a0\\a0 ";}}
.scroll{{overflow-x:auto}}
table{{border-collapse:collapse;font-size:.87rem;font-variant-numeric:tabular-nums;margin:.5rem 0}}
th,td{{padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule)}}
th{{font-weight:600;color:var(--grey);vertical-align:bottom}}.num{{text-align:right}}td.num{{white-space:nowrap}}td:first-child{{min-width:9em;overflow-wrap:anywhere}}td.text{{overflow-wrap:anywhere;min-width:9em}}
details{{margin:.5rem 0}}summary{{cursor:pointer;color:var(--grey)}}
pre{{background:var(--panel);padding:.7rem;overflow-x:auto;font-size:.8rem;line-height:1.35}}
figure{{margin:.6rem 0}}.grid-of{{display:grid;grid-template-columns:repeat(auto-fit,minmax(330px,1fr));gap:.6rem 1rem}}
svg{{width:100%;height:auto;display:block;overflow:visible}}svg text{{font-size:11px;fill:var(--text)}}
.end{{text-anchor:end}}.mid{{text-anchor:middle}}
.grid{{stroke:var(--rule);stroke-width:.7;fill:none}}
.zero{{stroke:var(--text);stroke-width:1;stroke-dasharray:2 2;fill:none}}
.rule{{stroke:var(--page);stroke-width:1.4;fill:none}}.others{{stroke:var(--others);stroke-width:.7;fill:none}}
.line{{stroke:var(--arm);stroke-width:1.7;fill:none;stroke-linejoin:round}}.band{{fill:var(--arm);opacity:.16}}
.dot,.mark{{fill:var(--arm)}}.ring{{fill:none;stroke:var(--arm);stroke-width:1.6}}
.interval{{stroke:var(--arm);stroke-width:2;fill:none}}.seed{{stroke:var(--grey);stroke-width:1.4}}
.heat path{{shape-rendering:crispEdges}}
.key{{list-style:none;display:flex;flex-wrap:wrap;gap:.1rem 1.4rem;padding:0;margin:.4rem 0;font-size:.87rem}}
.key li{{display:flex;align-items:center;gap:.5em;overflow-wrap:anywhere}}.swatch{{width:34px;flex:none}}
footer{{margin-top:2.5rem;border-top:1px solid var(--rule);padding-top:.5rem}}
{_ARMS}{_HEAT}{_DIVERGING}
@media print{{
:root{{color-scheme:light;{_LIGHT}}}
body{{max-width:none;padding:0;font-size:10pt}}nav,summary{{display:none}}
details::details-content{{content-visibility:visible;display:block;height:auto}}
figure,tr,.key{{break-inside:avoid}}h2,h3,h4{{break-after:avoid}}
.scroll{{overflow:visible}}pre{{white-space:pre-wrap}}
*{{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
}}
"""
