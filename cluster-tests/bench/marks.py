"""The marks: what each figure must be and what it aims at, from the figures of the same run."""

OURS, INCUMBENT, FLOOR = "ours", "smg 1.13.0", "nginx"

# Columns of the table: key, title, unit.
COLUMNS = [
    ("cpu_1k", "CPU-s/1k req, 1 KB", "{:.4f}"),
    ("cpu_32k", "CPU-s/1k req, 32 KB", "{:.4f}"),
    ("added_p50", "added p50, us", "{:.0f}"),
    ("sse_unpaced", "CPU-s/1k chunks, unpaced", "{:.4f}"),
    ("sse_paced", "CPU-s/1k chunks, 20 ms", "{:.4f}"),
    ("added_ttft", "added TTFT p50, us", "{:.0f}"),
    ("rss_peak", "RSS peak, MB", "{:.0f}"),
    ("rss_now", "RSS after, MB", "{:.0f}"),
    ("cpu_growth", "CPU end/start", "{:.2f}"),
    ("ready", "start to ready, s", "{:.3f}"),
]
UNITS = {key: unit for key, _, unit in COLUMNS}

# Row, key, policy, must and aim. Each bound is (of whom, factor); of None it is the factor itself.
ROWS = [
    ("CPU per request, 1 KB, round_robin", "cpu_1k", "round_robin", [(INCUMBENT, 0.5)], [(INCUMBENT, 0.25), (FLOOR, 3)]),
    ("CPU per request, 32 KB, round_robin", "cpu_32k", "round_robin", [(INCUMBENT, 0.5)], [(INCUMBENT, 0.25), (FLOOR, 3)]),
    ("CPU per request, 1 KB, cache_aware", "cpu_1k", "cache_aware", [(INCUMBENT, 0.5)], [(INCUMBENT, 0.3)]),
    ("CPU per request, 32 KB, cache_aware", "cpu_32k", "cache_aware", [(INCUMBENT, 0.5)], [(INCUMBENT, 0.3)]),
    ("added latency p50, one connection", "added_p50", "round_robin", [(INCUMBENT, 0.5)], [(FLOOR, 2.5)]),
    ("SSE CPU per chunk, unpaced", "sse_unpaced", "round_robin", [(INCUMBENT, 0.6)], [(FLOOR, 1.2)]),
    ("SSE CPU per chunk, paced at 20 ms", "sse_paced", "round_robin", [(INCUMBENT, 0.8)], [(FLOOR, 1.2)]),
    ("added time to first token p50", "added_ttft", "round_robin", [(INCUMBENT, 0.4)], [(FLOOR, 2)]),
    ("RSS peak after distinct prompts, MB", "rss_peak", "cache_aware", [(None, 120)], [(None, 64)]),
    ("CPU per request, end against start", "cpu_growth", "cache_aware", [(None, 1.1)], [(None, 1.0)]),
    ("start to ready, s", "ready", "round_robin", [(None, 0.3)], [(None, 0.1)]),
]


def verdicts(figures):
    """For each row: its figure, the bounds and whether they hold. `figures` is {(gateway, policy): {key: value}}."""
    found = []
    for title, key, policy, must, aim in ROWS:
        ours = figures.get((OURS, policy), {}).get(key)
        peers = {
            f"{gateway} {own}": values[key]
            for (gateway, own), values in figures.items()
            if gateway not in (OURS, FLOOR) and own == policy and values.get(key) is not None
        }
        best = min(peers.items(), key=lambda it: it[1]) if peers else None
        must, aim = ([bound(figures, key, policy, it) for it in bounds] for bounds in (must, aim))
        if best:
            must.insert(0, (best[1], f"best peer, {best[0]}"))
        found.append({
            "row": title, "key": key, "ours": ours, "must": must, "aim": aim,
            "must_holds": holds(ours, must), "aim_holds": holds(ours, aim),
        })
    return found


def bound(figures, key, policy, of):
    whom, factor = of
    if whom is None:
        return factor, "fixed"
    value = figures.get((whom, "" if whom == FLOOR else policy), {}).get(key)
    return (None if value is None else value * factor), f"{factor:g} x {whom}"


def holds(ours, bounds):
    """None when a figure is missing: that is no hit."""
    if ours is None or any(value is None for value, _ in bounds):
        return None
    return all(ours <= value for value, _ in bounds)


def figures_table(contenders, figures, reasons):
    """One line for each contender; one that could not be measured says why."""
    lines = ["| gateway | " + " | ".join(title for _, title, _ in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for it in contenders:
        if it.name in reasons:
            lines.append(f"| {it.name} | not measured: {reasons[it.name]} |" + " |" * (len(COLUMNS) - 1))
            continue
        values = figures.get((it.gateway, it.policy), {})
        cells = ["-" if values.get(key) is None else unit.format(values[key]) for key, _, unit in COLUMNS]
        lines.append(f"| {it.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def marks_table(found):
    verdict = {True: "hit", False: "MISS", None: "no figure"}
    lines = ["| figure | ours | must | | aim | |", "|---|---|---|---|---|---|"]
    for it in found:
        unit = UNITS[it["key"]]
        show = lambda value: "?" if value is None else unit.format(value)
        sides = [", ".join(f"<= {show(value)} ({why})" for value, why in it[side]) for side in ("must", "aim")]
        lines.append(
            f"| {it['row']} | {show(it['ours'])} | {sides[0]} | {verdict[it['must_holds']]}"
            f" | {sides[1]} | {verdict[it['aim_holds']]} |"
        )
    return "\n".join(lines)
