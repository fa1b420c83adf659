"""Tables, figures and the plot of a run."""
import statistics

from common import quantile
from trees import PIPES

ENCODINGS = ("raw", "gzip", "zstd", "s2")
MB = 1_000_000


def number(value):
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value < 0.1 else f"{value:.2f}"


def table(title, head, rows):
    if not rows:
        return ""
    lines = [f"\n### {title}\n", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]) + "\n"


def p50(ms, what, who="cloche"):
    values = ms.get(f"{what}/{who}")
    return statistics.median(values) if values else None


# ---- the first table, and the budgets

def floor_table(ms):
    rows = []
    for what in ("create", "run", "destroy", "whole cycle"):
        for floor in ("floor", "floor, moved"):
            bare, pooled, empty = p50(ms, what, floor), p50(ms, what), p50(ms, what, "cloche, no pool")
            if bare and (pooled or empty):
                rows.append((what, floor, number(bare), *(f"{number(v)} = {v / bare:.2f} ×" if v else "-"
                                                         for v in (pooled, empty))))
    return table("Distance to the floor (p50, ms)", ("what", "floor", "its ms", "cloche", "cloche, pool empty"), rows)


def at_most(limit, what):
    return (f"≤ {limit} ms", lambda raw: p50(raw["ms"], what), lambda v: v <= limit, "{:.2f} ms")


def p99_at_most(limit, what):
    def get(raw):
        values = raw["ms"].get(f"{what}/cloche")
        return quantile(values, 0.99) if values else None
    return (f"p99 ≤ {limit} ms", get, lambda v: v <= limit, "{:.2f} ms")


def times_faster(limit, what, who):
    def get(raw):
        mine, theirs = p50(raw["ms"], what), p50(raw["ms"], what, who)
        return theirs / mine if mine and theirs else None
    return (f"≥ {limit} × {who}", get, lambda v: v >= limit, "{:.1f} ×")


def figure(text, path, is_met, form):
    def get(raw):
        for key in path:
            raw = raw.get(key) if isinstance(raw, dict) else None
        return statistics.median(raw) if isinstance(raw, list) else raw
    return (text, get, is_met, form)


def empty_to_floor(raw):
    mine, bare = p50(raw["ms"], "create", "cloche, no pool"), p50(raw["ms"], "create", "floor, moved")
    return mine / bare if mine and bare else None


def cycles_of(clients, who):
    return lambda raw: statistics.median(raw.get("cycles_per_second", {}).get(clients, {}).get(who) or [0]) or None


CYCLES = 150  # a second, of whole cycles by 8 clients


def cycles_to_floor(raw):
    """The target where the kernel alone does not make as many."""
    mine, bare = cycles_of("8", "cloche")(raw), cycles_of("8", "floor")(raw)
    return mine / bare if mine and bare and bare < CYCLES else None


def stream_ratio(tree, encoding, against):
    def get(raw):
        ms = raw.get("streams", {}).get("ms", {})
        mine, theirs = (ms.get(f"{tree}, {e}/{who}") for e, who in ((encoding, "cloche"), (against, PIPES[against][0])))
        return statistics.median(theirs) / statistics.median(mine) if mine and theirs else None
    return get


SMALL, LARGE = "20,000 files, 200 MB", "8 files of 100 MB"
BUDGETS = (  # what, then: target, value, whether it is met, its form
    ("create, pool empty", "≤ 2 × floor with one cgroup move", empty_to_floor, lambda v: v <= 2, "{:.2f} ×"),
    ("create, pool warm", *at_most(2.5, "create")),
    ("create, pool warm", *times_faster(10, "create", "runc")),
    ("run true until its exit is known", *at_most(2, "run")),
    ("destroy until the reply", *at_most(5, "destroy")),
    ("8 clients, whole cycles", f"≥ {CYCLES}/s", cycles_of("8", "cloche"), lambda v: v >= CYCLES, "{:.0f}/s"),
    ("the floor's, in 8 processes", f"≥ {CYCLES}/s, else what follows counts", cycles_of("8", "floor"), lambda v: v >= CYCLES, "{:.0f}/s"),
    ("8 clients, whole cycles", "≥ 0.8 × floor, in 8 processes", cycles_to_floor, lambda v: v >= 0.8, "{:.2f} ×"),
    ("memory of an idle container", *figure("≤ 0.5 MB", ("memory_kb", "1000", "a container"), lambda v: v <= 500, "{:.0f} kB")),
    ("create beside 1,000", *p99_at_most(50, "create beside 1,000")),
    ("volume create", *at_most(1, "volume create, empty")),
    ("volume create, asynchronous", *at_most(1, "volume create, asynchronous, first poll, empty")),
    ("first copy of 20,000 files", *at_most(2, "copy, the first, 20,000 files")),
    ("copy of what an idle container has", *at_most(2, "copy of what an idle container has, 20,000 files")),
    ("privileged flip", *at_most(2, "privileged flip, 20,000 files")),
    ("volume destroy", *at_most(2, "destroy, 20,000 files")),
    ("output", *figure("≥ 1,200 MB/s", ("output", "dd bs=1M, cloche"), lambda v: v >= 1200, "{:,.0f} MB/s")),
    ("bytes of output lost", *figure("0", ("lost_most",), lambda v: v == 0, "{:.0f}")),
    ("zstd of small files", "≥ 4 × tar with gzip", stream_ratio(SMALL, "zstd", "gzip"), lambda v: v >= 4, "{:.2f} ×"),
    ("zstd of large files", "≥ 10 × tar with gzip", stream_ratio(LARGE, "zstd", "gzip"), lambda v: v >= 10, "{:.2f} ×"),
    ("raw stream of small files", "≥ 0.7 × tar", stream_ratio(SMALL, "raw", "raw"), lambda v: v >= 0.7, "{:.2f} ×"),
    ("raw stream of large files", "≥ 0.7 × tar", stream_ratio(LARGE, "raw", "raw"), lambda v: v >= 0.7, "{:.2f} ×"),
    ("list of 5,000 volumes", *p99_at_most(20, "list of 5,000")),
    ("list of 1,000 containers", *p99_at_most(20, "list of 1,000")),
    ("restart with 1,000 containers", *at_most(200, "restart with 1,000 after kill -9")),
    ("server, fresh", *figure("RSS ≤ 8 MB", ("rss_kb", "fresh"), lambda v: v <= 8192, "{:,.0f} kB")),
)


def budget_table(raw):
    rows = []
    for what, target, get, is_met, form in BUDGETS:
        value = get(raw)
        if value is not None:
            rows.append((what, target, form.format(value), "yes" if is_met(value) else "**no**"))
    return table("Budgets", ("what", "target", "seen", "met"), rows)


# ---- times

def times_table(ms):
    order = list(dict.fromkeys(name.split("/", 1)[0] for name in ms))
    rows = []
    for name, values in ms.items():
        what, who = name.split("/", 1)
        mine, its = p50(ms, what), statistics.median(values)
        rows.append((what, who, len(values), number(min(values)), number(its), number(quantile(values, 0.99)),
                     number(mine / its) if mine and who != "cloche" else "-"))
    rows.sort(key=lambda row: (order.index(row[0]), row[1] != "cloche"))
    return table("Times", ("what", "who", "times", "min ms", "p50 ms", "p99 ms", "cloche's p50 is so many times that"), rows)


def overhead_table(ms):
    """What of the figures is the driver's and TCP's own."""
    rows = [(name.split("/")[0], number(min(values)), number(statistics.median(values)), number(quantile(values, 0.99)))
            for name, values in ms.items() if name.endswith("/null server")]
    return table("The driver's own time, against a server that does nothing", ("what", "min ms", "p50 ms", "p99 ms"), rows)


def profile_table(profiles):
    """Median microseconds of each phase."""
    names = list(dict.fromkeys(name for phases in profiles.values() for name in phases))
    return table("A create by phases, as the server sees it (µs, min / p50)", ("pool", *(name[:-3] for name in names)),
                 [(pool, *(f"{min(phases[n]):,.0f} / {statistics.median(phases[n]):,.0f}" for n in names))
                  for pool, phases in profiles.items()])


# ---- the rest

def output_tables(raw):
    text = table("Output of one process to a client that counts", ("what", "median MB/s", "max MB/s"),
                 [(name, number(statistics.median(v)), number(max(v))) for name, v in raw.get("output", {}).items()])
    losses = raw.get("lost", {})
    title = f"Bytes of output lost, of {raw.get('loss_bytes', 0):,}"
    return text + table(title, ("reader", "who", "times", "most", "least"),
                        [(*name.split("/", 1), len(v), f"{max(v):,}", f"{min(v):,}") for name, v in losses.items()])


def scale_tables(raw):
    parts = ("shim", "init", "server", "a container")
    text = table("Memory of an idle container (PSS, kB)", ("containers", *parts, "server, RSS"),
                 [(f"{int(n):,}", *(number(m[part]) for part in parts), f"{m['server, RSS']:,}")
                  for n, m in raw.get("memory_kb", {}).items()])
    text += table("Memory of an idle attach with standard output (PSS)", ("process", "kB"),
                  [(who, number(kb)) for who, kb in raw.get("attach_kb", {}).items()])
    text += table("Idle: processor time in ms, and how often somebody woke",
                  ("server", "in so many s", "its own ms", "woke", "how many shims", "their ms", "woke"),
                  [(what, f["seconds"], *map(number, f["server"]), f["n shims"], *map(number, f["shims"]))
                   for what, f in raw.get("idle", {}).items()])
    return text + table("Server, RSS", ("when", "kB"), [(when, f"{kb:,}") for when, kb in raw.get("rss_kb", {}).items()])


def parallel_table(raw):
    costs = raw.get("processor_ms_per_cycle", {})
    rows = [(clients, who, number(statistics.median(rates)), number(max(rates)),
             *(number(statistics.median(ms)) for ms in zip(*costs[clients][who])))
            for clients, by_who in raw.get("cycles_per_second", {}).items() for who, rates in by_who.items()]
    return table("Clients at once: create, run, destroy cycles a second",
                 ("clients", "who", "median", "max", "user ms a cycle, whole machine", "kernel ms"), rows)


def stream_tables(streams):
    ms, n_bytes, rows = streams["ms"], streams["bytes"], []
    for name, values in ms.items():
        what, who = name.split("/", 1)
        tree, encoding = what.rsplit(", ", 1)
        its, ratios = statistics.median(values), ("-", "-")
        if who == "cloche":
            peers = [ms.get(f"{tree}, {e}/{PIPES[e][0]}") if e in PIPES else None for e in (encoding, "gzip")]
            ratios = [f"{statistics.median(peer) / its:.2f}" if peer else "-" for peer in peers]
        rows.append((tree, encoding, who, len(values), *(f"{v / 1e3:.2f}" for v in (min(values), its, max(values))),
                     f"{n_bytes[tree] / its / 1e3:,.0f}", *ratios))
    rows.sort(key=lambda row: (list(n_bytes).index(row[0]), ENCODINGS.index(row[1])))
    text = table("Streams", ("out and in of", "encoding", "who", "times", "min s", "p50 s", "max s", "MB/s",
                             "so many times as fast as that pipe", "and as the one with gzip"), rows)
    return text + table("Most memory in a stream", ("of", "MB on the wire", "helper out, kB", "helper in, kB", "server, kB"),
                        [(what, f"{row['bytes'] / MB:,.0f}", *(f"{row.get(who, 0):,}" for who in ("out", "in", "server")))
                         for what, row in streams["peaks_kb"].items()])


def about_text(about):
    lines = [f"{about['date']}, commit {about['commit']}, `{about['command']}`, {about['seconds']:.0f} s.",
             f"{about['machine']}."]
    lines += [f"* Not there: {name}" for name in about["missing"]]
    lines += [f"* **{remark}**" for remark in about["remarks"]]
    return "\n".join(lines) + "\n"


def text_of(raw):
    ms = raw["ms"]
    known = {name: values for name, values in ms.items() if values}
    parts = [floor_table(known), about_text(raw["about"]), budget_table(raw), times_table(known), overhead_table(known),
             profile_table(raw.get("profile_us", {})),
             parallel_table(raw), output_tables(raw), scale_tables(raw)]
    if "streams" in raw:
        parts.append(stream_tables(raw["streams"]))
    return "".join(part + "\n" for part in parts if part)


# ---- the plot

PLOTTED = ("create", "run", "destroy", "whole cycle", "attach", "volume create, empty", "copy, 20,000 files",
           "privileged flip, 20,000 files", "destroy, 20,000 files", "whole check", "concourse check", "concourse task")


def ratios(ms):
    """What, who, and how many times cloche's p50 it takes."""
    found = []
    for name, values in ms.items():
        what, who = name.split("/", 1)
        mine = p50(ms, what)
        if what in PLOTTED and who not in ("cloche", "null server", "cloche, no pool") and mine and values:
            found.append((what, who, statistics.median(values) / mine))
    return sorted(found, key=lambda row: PLOTTED.index(row[0]), reverse=True)


def plot(ms, path):
    """False if there is nothing to draw with, or nothing to draw."""
    try:
        import matplotlib  # pylint: disable=import-outside-toplevel
        matplotlib.use("svg")
        from matplotlib import pyplot  # pylint: disable=import-outside-toplevel
    except ImportError:
        return False
    bars = ratios(ms)
    if not bars:
        return False
    figure_, axes = pyplot.subplots(figsize=(9, 1.2 + 0.28 * len(bars)), constrained_layout=True)
    values = [value for _, _, value in bars]
    drawn = axes.barh(range(len(bars)), values, color=["#3a7d44" if value >= 1 else "#b5651d" for value in values])
    axes.bar_label(drawn, [f"{number(value)} ×" for value in values], padding=3, fontsize=8)
    axes.set_yticks(range(len(bars)), [f"{what}: {who}" for what, who, _ in bars], fontsize=8)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("time of each, in times of cloche's (p50)")
    figure_.savefig(path)
    pyplot.close(figure_)
    return True
