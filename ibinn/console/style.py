"""The page's style sheet."""

STYLE = """
.gradio-container { max-width: 1280px !important; }
h1 { font-size: 1.5rem; font-weight: 600; } h2 { font-size: 1.15rem; font-weight: 600; }
.dim { opacity: .8; font-size: .9rem; } .headline { font-weight: 600; }
.stated { margin: .4rem 0; }
.notice { padding: .6rem .9rem; border-left: 5px solid; border-radius: 4px; margin: .3rem 0;
  overflow-wrap: anywhere; color: #1c2026; }
.notice.error { background: #fde7ea; border-color: #be2428; }
.notice.good { background: #e4f3e8; border-color: #267f48; }
.notice.plain { background: #eef1f4; border-color: #66707c; }
.badge { padding: .1rem .6rem; border-radius: 1rem; color: #fff; font-weight: 600;
  white-space: nowrap; }
.badge.good { background: #207040; } .badge.doubt { background: #855800; }
.badge.bad { background: #be2428; } .badge.none { background: #5b636d; }
.scroll { overflow-x: auto; max-height: 30rem; }
.scroll table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.scroll table, .scroll tr, .scroll tbody, .scroll thead { border: 0 !important; }
.scroll caption { text-align: left; font-weight: 600; padding: .3rem 0; }
.scroll th, .scroll td { text-align: left; padding: .15rem .6rem .15rem 0; font-weight: 400;
  border: 0 !important; border-bottom: 1px solid #8884 !important; vertical-align: baseline; }
#trade-off, #tests { min-width: 32rem; } #severity-table { min-width: 36rem; }
#classes th, #classes td { white-space: nowrap; }
.scroll thead th { font-size: .85rem; opacity: .8; }
.bar { display: inline-block; width: 7rem; height: .7rem; margin-right: .5rem;
  background: #8883; border-radius: 3px; }
.bar > span { display: block; height: 100%; background: #2f79a8; border-radius: 3px; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.pictures figure { flex: 1 1 240px; max-width: 100%; } .pictures img { width: 320px; }
figure { margin: .4rem 0; }
figure img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figcaption { font-size: .85rem; opacity: .85; }
:focus-visible { outline: 3px solid #2f79a8 !important; outline-offset: 2px; }
@media (max-width: 480px) { .bar { width: 3rem; } h1 { font-size: 1.25rem; } }
"""
