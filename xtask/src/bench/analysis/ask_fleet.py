"""Runs the queries of docs/fleet.md on DuckDB, in the directory that has `fleet`.

Usage: ask_fleet.py PAGE. Prints the rows of each query as JSON."""

import json
import re
import sys

import duckdb

queries = re.findall(r"```sql\n(.*?)```", open(sys.argv[1], encoding="utf-8").read(), re.DOTALL)
print(json.dumps([duckdb.sql(query).fetchall() for query in queries]))
