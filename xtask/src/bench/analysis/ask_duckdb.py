"""The questions of `analyzer report`, asked of DuckDB on the same files: outcomes, quantiles of each
stage, phantoms of each health sample, and clients joined with what the kernel saw of them.

Usage: ask_duckdb.py DIR THREADS — a directory that `lab generate` made. Prints answers as JSON."""

import json
import sys

import duckdb
import pyarrow as pa

directory, threads = sys.argv[1], int(sys.argv[2])
SETTLE_NS = 250_000_000
db = duckdb.connect(config={"threads": threads})


def table(name):
    return pa.ipc.open_stream(f"{directory}/capture/{name}.arrows")


connections = table("connections")
# A stream can be read once, so what is asked about is kept, as the analyzer does.
db.execute(
    """
    create table legs as
    select role, class, outcome, closed_by, closed_how, remote_address, remote_port::usmallint as remote_port,
           port::usmallint as port, first_seen_ns, syn_received_ns, established_ns, accepted_ns, request_ns,
           response_ns, upgraded_ns, least(first_frame_in_ns, first_frame_out_ns) as first_frame_ns,
           left_established_ns, closed_ns
    from connections
    """
)
health = table("health").read_all()
outcomes = dict(
    db.execute("select outcome, count(*) from legs where outcome <> 'plain_http' group by 1").fetchall()
)

STEPS = [
    ("syn_received", "established", "established_ns - syn_received_ns"),
    ("established", "accepted", "accepted_ns - established_ns"),
    ("established", "request_received", "request_ns - established_ns"),
    ("request_received", "response_sent", "response_ns - request_ns"),
    ("upgraded", "first_frame", "first_frame_ns - upgraded_ns"),
    ("syn_received", "upgraded", "upgraded_ns - syn_received_ns"),
]
quantiles = db.execute(
    "select "
    + ", ".join(f"quantile_disc({step}, [0.5, 0.9, 0.99, 0.999, 1.0])" for _, _, step in STEPS)
    + " from legs where outcome = 'upgraded'"
).fetchone()
steps = {f"{a} {b}": [ns / 1000 for ns in found] for (a, b, _), found in zip(STEPS, quantiles)}

phantoms = db.execute(
    f"""
    with counted as (
        select established_ns, left_established_ns from legs
        where role = 'passive' and port = 3005 and class <> 'http' and established_ns is not null
    ), changes as (
        select established_ns as at_ns, 1 as change from counted
        union all select left_established_ns, -1 from counted where left_established_ns is not null
    ), steps as (
        select at_ns, sum(sum(change)) over (order by at_ns) as n from changes group by at_ns
    ), samples as (
        select start_mono_ns - {SETTLE_NS} as from_ns, end_mono_ns as to_ns, reported from health
        where reported is not null
    ), before as (
        select samples.*, coalesce(steps.n, 0) as n
        from samples asof left join steps on samples.from_ns >= steps.at_ns
    ), inside as (
        select before.from_ns, max(steps.n) as n
        from steps asof join before on steps.at_ns > before.from_ns
        where steps.at_ns <= before.to_ns group by before.from_ns
    ), extremes as (
        select before.from_ns, reported, greatest(before.n, coalesce(inside.n, before.n)) as high
        from before left join inside on inside.from_ns = before.from_ns
    )
    select arg_max(greatest(reported - high, 0), from_ns), max(greatest(reported - high, 0)) from extremes
    """
).fetchone()

clients = db.execute(
    f"""
    with seen as (
        select row_number() over () as client, started_unix_ns, upgraded_unix_ns, local_address,
               local_port::usmallint as local_port, outcome
        from read_json('{directory}/clients.jsonl', format = 'newline_delimited', columns = {{
            started_unix_ns: 'BIGINT', upgraded_unix_ns: 'BIGINT', local_address: 'VARCHAR',
            local_port: 'INTEGER', outcome: 'VARCHAR'}})
    ), joined as (
        select client, any_value(seen.outcome) as outcome,
               arg_min(legs.closed_how, abs(legs.first_seen_ns - seen.started_unix_ns)) as how,
               arg_min(legs.closed_by, abs(legs.first_seen_ns - seen.started_unix_ns)) as who
        from seen join legs on legs.remote_address = seen.local_address
            and legs.remote_port = seen.local_port and legs.role = 'passive'
        group by client
    )
    select outcome, how, who, count(*) from joined group by all
    """
).fetchall()
print(
    json.dumps(
        {
            "outcomes": outcomes,
            "steps": steps,
            "phantoms": phantoms,
            "matched": sum(row[3] for row in clients),
        }
    )
)
