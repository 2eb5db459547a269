"""The figures of `./dev bench networks` as one HTML page with plots. Standard library only."""
import html

WIDTH, BAR, GAP, LEFT = 640, 16, 6, 250
# What a cycle went to, in the order of the bars; docs/theory_of_operation.md says what each is.
CAUSES = {"array_busy": "#2f6f4f", "wait_post": "#8fb8a0", "wait_activations": "#c9b458",
          "wait_load": "#d98f4e", "wait_decrypt": "#b5473c", "wait_memory": "#7d4b8f",
          "vector": "#4a78b5", "input": "#9aa5b1", "output": "#c3cad2", "control": "#55606b"}


def label(row):
    images = f"{row['images']} image{'s' if row['images'] != 1 else ''}"
    return f"{row['workload']}, {images}, {row['memory']}"


def text(x, y, words, anchor="end"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'


def plot(lines, body):
    height = lines * (BAR + GAP) + GAP
    return (f'<svg viewBox="0 0 {LEFT + WIDTH + 70} {height}" width="100%" '
            f'role="img">{body}</svg>')


def causes_plot(rows):
    body = []
    for i, row in enumerate(rows):
        y, x = GAP + i * (BAR + GAP), LEFT
        body.append(text(LEFT - 8, y + BAR - 4, label(row)))
        for cause, colour in CAUSES.items():
            share = row["stalls_locked"].get(cause, 0) / row["cycles_locked"]
            body.append(f'<rect x="{x:.2f}" y="{y}" width="{share * WIDTH:.2f}" height="{BAR}" '
                        f'fill="{colour}"><title>{cause} {share:.1%}</title></rect>')
            x += share * WIDTH
    return plot(len(rows), "".join(body))


def utilisation_plot(rows, anchors):
    lines = [(label(r), r["utilisation"], "#2f6f4f") for r in rows]
    for name, known in anchors.items():
        lines += [(f"{name}: {a['accelerator']}", a["utilisation"], "#9aa5b1") for a in known]
    body = []
    for i, (words, share, colour) in enumerate(lines):
        y = GAP + i * (BAR + GAP)
        body += [text(LEFT - 8, y + BAR - 4, words[:42]),
                 f'<rect x="{LEFT}" y="{y}" width="{share * WIDTH:.2f}" height="{BAR}" '
                 f'fill="{colour}"/>',
                 text(LEFT + share * WIDTH + 6, y + BAR - 4, f"{share:.3f}", "start")]
    return plot(len(lines), "".join(body))


def table(rows):
    head = ("network", "N", "memory", "images", "cycles locked", "unlocked", "ratio", "utilisation",
            "beats/cycle", "MB read", "images/s")
    cells = [(r["workload"], r["array_n"], r["memory"], r["images"], f"{r['cycles_locked']:,}",
              f"{r['cycles_unlocked']:,}", f"{r['ratio']:.4f}", f"{r['utilisation']:.3f}",
              f"{r['beats_per_cycle']:.3f}", f"{r['bytes_read'] / 1e6:.1f}",
              f"{r['frames_per_second']:,.1f}") for r in rows]
    line = lambda kind, words: "<tr>" + "".join(f"<{kind}>{html.escape(str(w))}</{kind}>"  # noqa: E731
                                               for w in words) + "</tr>"
    return "<table>" + line("th", head) + "".join(line("td", c) for c in cells) + "</table>"


def page(figures):
    rows, cpu = figures["rows"], figures.get("cpu")
    legend = " ".join(f'<span><i style="background:{c}"></i>{n}</span>' for n, c in CAUSES.items())
    beside = ""
    if cpu:
        beside = (f"<h2>This CPU</h2><p>onnxruntime {html.escape(cpu['onnxruntime'])} on "
                  f"{html.escape(cpu['cpu'])}: " +
                  "; ".join(f"{html.escape(r['network'])} {1 / r['seconds']:,.1f} images a second "
                            f"({r['kind']}, {r['threads']} thread)" for r in cpu["rows"]) + ".</p>")
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Networks on Latchkey</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}}
svg{{font-size:12px}} table{{border-collapse:collapse;font-variant-numeric:tabular-nums}}
td,th{{padding:.2rem .6rem;border-bottom:1px solid #ddd;text-align:right}}
td:first-child,th:first-child{{text-align:left}} i{{display:inline-block;width:.8em;height:.8em;
margin:0 .3em 0 .8em}}</style>
<h1>Networks on the simulated card</h1>
<p>Cycles are the RTL's own counters, locked; the memory's timing is a model, and {figures['clock_hz'] / 1e6:.0f} MHz
is the simulated card's setting, no timed clock. Weights of the large networks are seeded random numbers.</p>
<h2>Where the cycles go</h2><p>{legend}</p>{causes_plot(rows)}
<h2>Useful multiply-accumulates over the array's peak</h2>
<p>Grey: published figures of other accelerators, of their own peaks; sources in
bench/networks/anchors.json.</p>{utilisation_plot(rows, figures['anchors'])}
<h2>Figures</h2>{table(rows)}{beside}</html>
"""
