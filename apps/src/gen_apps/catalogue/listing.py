"""`gen data list`: the catalogue as a table."""

import rich

from gen_apps.catalogue.config import ListData
from gen_apps.catalogue.entries import ENTRIES, Entry
from gen_apps.results import Row, table, write_results

SHOWN = ("here", "as", "MB", "licence", "holds")
KEY = """as DATA: gen diffusion|vae|gan|autoencode train, gen compare and gen embed take the name
as TEXT: gen llm tokenizer|data|pretrain|eval take the name; –: for code of your own
gen data show NAME: a sheet and the other facts; gen data get NAME: install it (--dry-run: how)
Files of yours: NAME:FOLDER has the files of a set, hub:NAME is of the Hugging Face hub."""


def list_data(config: ListData) -> None:
    rows = [row(entry) for entry in ENTRIES if config.kind in ("all", entry.kind)]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        rich.print(table(kind, [row for row in rows if row["kind"] == kind], SHOWN))
        print()
    print(KEY)
    write_results(config.json, "data list", config, rows)


def row(entry: Entry) -> Row:
    """The facts of an entry, by column."""
    return {
        "name": entry.name,
        "kind": entry.kind,
        "holds": entry.holds,
        "licence": entry.licence,
        "MB": entry.megabytes,
        "as": entry.takers or "–",
        "here": "yes" if entry.here else "no",
        "held out": entry.split or "–",
        "get": entry.get,
        "hub": f"hub:{entry.hub}" if entry.hub else "–",
    }
