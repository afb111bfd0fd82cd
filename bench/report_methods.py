#!/usr/bin/env python3
"""Tables and a picture of what bench/compare_methods.py wrote.

    bench/report_methods.py results.jsonl [--model NAME] [--cases bench/cases.json] [--svg methods.svg --task gsm8k]

Prints Markdown: one table a task, one row a case, in the order of the cases; mean and spread over seeds. One model: that
of --model, or the first that is named in the file; what was measured with others is passed over. The picture has memory
(VmHWM) across and loss up: what lies left and below is better. Standard library only.
"""

import argparse
import json
import pathlib
import statistics
import sys
from html import escape

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from compare_methods import read_results


def model_of(row):
    """Lines of before models were written down have none."""
    return (row.get("model") or {}).get("name")


def of_model(rows, name):
    """The rows of one model, and how many were passed over. Without a name: of the first that is named, and those that
    name none."""
    if name is None:
        name = next(filter(None, map(model_of, rows)), None)
        kept = [row for row in rows if model_of(row) in (None, name)]
    else:
        kept = [row for row in rows if model_of(row) == name]
    return kept, len(rows) - len(kept)


def case_of(row):
    return (row["task"], row["name"], float(row["epochs"]), tuple(row["flags"]))


def group(rows, cases):
    """case -> its results, one a seed, the last that was written; tasks together, in the order of `cases`, unknown ones
    behind."""
    places = {case_of(case): place for place, case in enumerate(cases)}
    tasks = list(dict.fromkeys([case["task"] for case in cases] + [row["task"] for row in rows]))
    groups = {}
    for row in rows:
        groups.setdefault(case_of(row), {})[row["seed"]] = row
    order = sorted(groups, key=lambda case: (tasks.index(case[0]), places.get(case, len(places))))
    return {case: [groups[case][seed] for seed in sorted(groups[case])] for case in order}


def spread(values, form):
    """Mean and half the range."""
    if len(values) == 1:
        return format(values[0], form)
    return f"{statistics.mean(values):{form}} ± {(max(values) - min(values)) / 2:{form}}"


def accuracy(row):
    return row["score"].get("accuracy")


def millions(count):
    return "" if count is None else f"{count / 1e6:.2f} M"


def table(task, groups):
    rows = {case: results for case, results in groups.items() if case[0] == task}
    scored = any(accuracy(r) is not None for results in rows.values() for r in results)
    head = ["", "parameters", "epochs", "held-out loss"] + (["exact match, %"] if scored else []) + \
        ["tokens/s", "VmHWM, MiB", "seeds"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" + " ---: |" * (len(head) - 1)]
    for (_, name, epochs, _), results in rows.items():
        cells = [name, millions(results[0]["parameters"]), f"{epochs:g}",
                 spread([r["score"]["loss"] for r in results], ".3f")]
        if scored:
            values = [accuracy(r) for r in results if accuracy(r) is not None]
            cells.append(spread([100 * v for v in values], ".1f") if values else "")
        cells += [spread([r["tokens_per_second"] for r in results], ".0f"),
                  f"{max(r['vm_hwm'] for r in results) / 2**20:.0f}", str(len(results))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def svg(task, groups):
    points = [(case[1], max(r["vm_hwm"] for r in results) / 2**20, statistics.mean(r["score"]["loss"] for r in results))
              for case, results in groups.items() if case[0] == task]
    if not points:
        raise ValueError(f"no results of {task}")
    width, height, left, bottom = 760, 420, 60, 50
    xs, ys = [p[1] for p in points], [p[2] for p in points]
    margin = max(max(ys) - min(ys), 0.02)
    x1, y0, y1 = max(xs) * 1.25, min(ys) - 0.05 * margin, max(ys) + 0.1 * margin

    def across(x):
        return left + (width - left - 20) * x / x1

    def up(y):
        return 20 + (height - bottom - 20) * (y1 - y) / (y1 - y0)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>']
    for i in range(5):
        x, y = x1 * i / 4, y0 + (y1 - y0) * i / 4
        out += [f'<line x1="{across(x):.0f}" y1="20" x2="{across(x):.0f}" y2="{height - bottom}" stroke="#ddd"/>',
                f'<text x="{across(x):.0f}" y="{height - bottom + 18}" text-anchor="middle">{x:.0f}</text>',
                f'<line x1="{left}" y1="{up(y):.0f}" x2="{width - 20}" y2="{up(y):.0f}" stroke="#ddd"/>',
                f'<text x="{left - 6}" y="{up(y) + 4:.0f}" text-anchor="end">{y:.3f}</text>']
    out += [f'<text x="{width / 2}" y="{height - 12}" text-anchor="middle">VmHWM, MiB</text>',
            f'<text x="14" y="{height / 2}" text-anchor="middle" transform="rotate(-90 14 {height / 2})">held-out loss, {escape(task)}</text>']
    for name, x, y in points:
        color = "#b3541e" if name.startswith("lora") else "#1e6bb3"
        out += [f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="5" fill="{color}"/>',
                f'<text x="{across(x) + 8:.1f}" y="{up(y) + 4:.1f}">{escape(name)}</text>']
    return "\n".join(out + ["</svg>"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results")
    parser.add_argument("--model", help="the name of its file or folder")
    parser.add_argument("--cases", default=pathlib.Path(__file__).with_name("cases.json"), help="their order")
    parser.add_argument("--svg")
    parser.add_argument("--task", default="gsm8k", help="of the picture")
    args = parser.parse_args()
    rows, passed_over = of_model(read_results(args.results), args.model)
    if passed_over:
        print(f"{passed_over} results of other models were passed over", file=sys.stderr)
    if not rows:
        parser.error(f"{args.results}: no results" + (f" of {args.model}" if args.model else ""))
    groups = group(rows, json.loads(pathlib.Path(args.cases).read_text()))
    for task in dict.fromkeys(case[0] for case in groups):
        print(f"### {task}\n\n{table(task, groups)}\n")
    if args.svg:
        picture = svg(args.task, groups)
        pathlib.Path(args.svg).write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
