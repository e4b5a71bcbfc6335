"""The questions of `analyzer report`, asked with pandas as scripts do today.

Usage: ask_pandas.py DIR — a directory that `lab generate` made. Prints answers as JSON."""

import json
import sys

import numpy as np
import pandas as pd
import pyarrow as pa

directory = sys.argv[1]
SETTLE_NS = 250_000_000


def table(name):
    return pa.ipc.open_stream(f"{directory}/capture/{name}.arrows").read_pandas()


legs = table("connections")
attempts = legs[legs.outcome != "plain_http"]
outcomes = attempts.groupby("outcome").size().to_dict()

upgraded = attempts[attempts.outcome == "upgraded"]
STEPS = [
    ("syn_received", "established", "syn_received_ns", "established_ns"),
    ("established", "accepted", "established_ns", "accepted_ns"),
    ("established", "request_received", "established_ns", "request_ns"),
    ("request_received", "response_sent", "request_ns", "response_ns"),
    ("upgraded", "first_frame", "upgraded_ns", "first_frame_in_ns"),
    ("syn_received", "upgraded", "syn_received_ns", "upgraded_ns"),
]
steps = {}
for start_name, end_name, start, end in STEPS:
    times = upgraded[end] - upgraded[start]
    # Nearest rank: a value that was measured.
    found = np.quantile(times.to_numpy(), [0.5, 0.9, 0.99, 0.999, 1.0], method="inverted_cdf")
    steps[f"{start_name} {end_name}"] = [float(ns) / 1000 for ns in found]

counted = legs[
    (legs.role == "passive") & (legs.port == 3005) & (legs["class"] != "http") & legs.established_ns.notna()
]
changes = pd.concat(
    [
        pd.DataFrame({"at_ns": counted.established_ns, "change": 1}),
        pd.DataFrame({"at_ns": counted.left_established_ns.dropna(), "change": -1}),
    ]
)
count = changes.groupby("at_ns").change.sum().sort_index().cumsum()
phantoms = []
for sample in table("health").itertuples():
    if pd.isna(sample.reported):
        continue
    from_ns, to_ns = sample.start_mono_ns - SETTLE_NS, sample.end_mono_ns
    first = count.index.searchsorted(from_ns, side="right")
    last = count.index.searchsorted(to_ns, side="right")
    high = count.iloc[max(first - 1, 0) : last].max() if last > 0 else 0
    phantoms.append(max(int(sample.reported - high), 0))

clients = pd.read_json(f"{directory}/clients.jsonl", lines=True)
joined = clients.merge(
    legs[legs.role == "passive"],
    left_on=["local_address", "local_port"],
    right_on=["remote_address", "remote_port"],
    suffixes=("", "_kernel"),
)
joined["distance"] = (joined.first_seen_ns - joined.started_unix_ns).abs()
nearest = joined.sort_values("distance").groupby("connection").first()
print(
    json.dumps(
        {
            "outcomes": {name: int(count) for name, count in outcomes.items()},
            "steps": steps,
            "phantoms": [phantoms[-1], max(phantoms)],
            "matched": len(nearest),
        }
    )
)
