"""The style sheet of report.html: light and dark as the reader's system asks for, and readable on a phone."""

STYLE = """
:root{color-scheme:light dark;--back:#fff;--card:#f4f6f8;--text:#1c2128;--soft:#57606a;--edge:#d0d7de;
--good:#116329;--bad:#b42318;--c0:#0860c4;--c1:#8a5a00;--c2:#5b6470;--c3:#7a3ec8;--c4:#0b7a75;--c5:#b4236a;--c6:#5e6b00}
@media (prefers-color-scheme:dark){:root{--back:#0d1117;--card:#161b22;--text:#e6edf3;--soft:#9aa5b1;--edge:#30363d;
--good:#56d364;--bad:#ff8f82;--c0:#58a6ff;--c1:#e3b341;--c2:#a3adb8;--c3:#c297ff;--c4:#4fd1c5;--c5:#ff8ac0;--c6:#c3cf4a}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:66rem;padding:1rem;color:var(--text);
background:var(--back);overflow-wrap:anywhere}
h1{font-size:1.6rem;margin:.5rem 0}h2{font-size:1.2rem;margin:2.2rem 0 .6rem}p{margin:.5rem 0}
a{color:var(--c0)}.lead{font-size:1.1rem}.note,figcaption,.card span{color:var(--soft)}.note{font-size:.9rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.8rem;margin:1rem 0}
.card{background:var(--card);border-radius:.6rem;padding:.8rem 1rem}.card b{
display:block;font-size:1.8rem;line-height:1.2}
.card.c0 b{color:var(--c0)}.card.c1 b{color:var(--c1)}.card.c2 b{color:var(--c2)}
.wide-table{overflow-x:auto;margin:.5rem 0 1rem}table{border-collapse:collapse;min-width:20rem}
th,td{padding:.3rem .9rem .3rem 0;border-bottom:1px solid var(--edge);text-align:right;white-space:nowrap;
font-variant-numeric:tabular-nums}
th:first-child,td:first-child{text-align:left}thead th{color:var(--soft);font-weight:600}
tbody th{font-weight:400}
dl{display:grid;grid-template-columns:minmax(9rem,max-content) 1fr;gap:.3rem 1.5rem;margin:.5rem 0}dd{margin:0}
dt{color:var(--soft)}@media (max-width:40rem){dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.6rem}}
.better{color:var(--good)}.worse{color:var(--bad)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1rem 2rem}
figure{margin:0}.chart{max-width:34rem}svg{width:100%;height:auto;display:block;
font:12px system-ui,sans-serif;fill:var(--text)}
.grid{stroke:var(--edge);fill:none}.grid.wide{stroke-width:3}.line{fill:none;stroke:currentColor;stroke-width:2}
.dashed{stroke-dasharray:6 4}.dot{fill:currentColor}.ring{fill:var(--back);stroke:currentColor;stroke-width:2}
.tick{stroke:currentColor;stroke-width:3}
.c0{color:var(--c0)}.c1{color:var(--c1)}.c2{color:var(--c2)}.c3{color:var(--c3)}.c4{color:var(--c4)}.c5{color:var(--c5)}
.c6{color:var(--c6)}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:0 1rem;padding:0;margin:.2rem 0;font-size:.9rem}
.card,.card.c0,.card.c1,.card.c2{color:var(--text)}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,25rem),1fr));gap:1.2rem}
.panels{display:grid;grid-template-columns:repeat(3,1fr);gap:.3rem;font-size:.85rem}
.panels img{width:100%;height:auto;display:block;border-radius:.3rem}
.bar{display:flex;height:1.1rem;border-radius:.3rem;overflow:hidden;margin:.4rem 0}.bar i{background:currentColor}
details{margin:.8rem 0}summary{cursor:pointer}
pre{overflow-x:auto;background:var(--card);padding:.8rem;border-radius:.4rem;font-size:.85rem}
"""
