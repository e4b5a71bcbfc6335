"""Runs the queries of docs/fleet.md on DuckDB and on ClickHouse's engine, in the directory that has `fleet`.

Usage: ask_fleet.py PAGE. Prints the rows of each query as JSON, by engine."""

import json
import re
import sys

import chdb
import duckdb

page = open(sys.argv[1], encoding="utf-8").read()


def queries(language):
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def clickhouse(query):
    settings = "output_format_json_quote_64bit_integers=0"
    answer = chdb.query(f"{query} settings {settings}", "JSONCompact")
    return json.loads(str(answer))["data"]


print(
    json.dumps(
        {
            "DuckDB": [duckdb.sql(query).fetchall() for query in queries("sql")],
            "ClickHouse": [clickhouse(query) for query in queries("sql clickhouse")],
        }
    )
)
