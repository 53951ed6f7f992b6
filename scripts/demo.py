"""The main job in a minute: land files, load them, land more, load again, look at the table.

Everything happens in ./demo, which is made anew each time.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

DEMO = Path(__file__).resolve().parent.parent / "demo"
LANDING = DEMO / "landing"
SEED = 7
PRODUCTS = ("espresso", "flat white", "cortado", "filter", "cold brew")
CITIES = ("Berlin", "Zürich", "Kraków", "Lyon", "Bologna")


def say(text: str) -> None:
    """A line between the commands."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def run(*command: str, expect: int = 0) -> None:
    """Show a command and run it, as a person would type it."""
    print(f"$ {shlex.join(command)}", flush=True)
    environ = {**os.environ, "AUTOLOADER_HOME": "."}
    done = subprocess.run(
        [sys.executable, "-m", "app", *command[1:]], cwd=DEMO, env=environ | source_path(), check=False
    )
    if done.returncode != expect:
        sys.exit(f"`{shlex.join(command)}` ended with {done.returncode}, {expect} was expected.")


def source_path() -> dict[str, str]:
    """So that the demo runs from a checkout whatever its environment holds."""
    return {"PYTHONPATH": str(DEMO.parent), "PYTHONSAFEPATH": "1"}


def order(dice: random.Random, number: int) -> dict[str, object]:
    """One order as a till would send it."""
    at = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=37 * number)
    items = [
        {"product": dice.choice(PRODUCTS), "quantity": dice.randint(1, 4), "price": dice.randint(280, 590) / 100}
        for _ in range(dice.randint(1, 3))
    ]
    return {
        "order_id": number,
        "ordered_at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "store": {"city": dice.choice(CITIES), "till": dice.randint(1, 6)},
        "items": items,
        "total": round(sum(i["quantity"] * i["price"] for i in items), 2),
        "paid": dice.randint(1, 30) > 1,
    }


def land(dice: random.Random, name: str, numbers: range, **more: object) -> None:
    """Write one gzip-compressed file of newline-delimited JSON, as a store's till would."""
    path = LANDING / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for number in numbers:
            file.write(json.dumps({**order(dice, number), **more}, ensure_ascii=False) + "\n")


def main() -> None:
    """Run the demo."""
    dice = random.Random(SEED)  # noqa: S311 - made-up orders, no secrets
    if DEMO.exists():
        shutil.rmtree(DEMO)
    DEMO.mkdir()

    say("1. Twenty files of 5,000 orders each land in a folder.")
    for i in range(20):
        land(dice, f"2026-03-{i + 1:02d}/orders.json.gz", range(i * 5000, (i + 1) * 5000))
    say("2. What would a load do? Nothing is written yet.")
    run("autoloader", "plan", "landing", "--to", "sales.orders")
    say("3. Load them: no server, no configuration. The table is made from what is in the files.")
    run("autoloader", "load", "landing", "--to", "sales.orders")
    say("4. Load again: nothing is new, nothing happens.")
    run("autoloader", "load", "landing", "--to", "sales.orders")

    say("5. Five more files land, with a field nobody announced; and one that was cut off on its way.")
    for i in range(20, 25):
        land(dice, f"2026-03-{i + 1:02d}/orders.json.gz", range(i * 5000, (i + 1) * 5000), loyalty_card=f"L{i:04d}")
    whole = (LANDING / "2026-03-25/orders.json.gz").read_bytes()
    (LANDING / "2026-03-26").mkdir()
    (LANDING / "2026-03-26/orders.json.gz").write_bytes(whole[: len(whole) // 2])
    run("autoloader", "load", "landing", "--to", "sales.orders", expect=3)
    say("6. The good files are in, with the new column. Which one failed, and why?")
    run("autoloader", "files", "sales.orders", "--failed")

    say("7. The table.")
    run("autoloader", "table", "sales.orders")
    say("8. Its rows: every order once, each with the file it came from.")
    run(
        "autoloader", "table", "sales.orders", "--sql",
        "select store.city, count(*) orders, count(distinct order_id) distinct_orders, round(sum(total), 2) revenue, "
        "count(loyalty_card) with_card from sales.orders group by 1 order by 1",
    )  # fmt: skip
    run(
        "autoloader", "table", "sales.orders", "--sql",
        "select order_id, ordered_at, total, loyalty_card, _file_path from sales.orders order by order_id desc limit 3",
    )  # fmt: skip
    say(f"Done. It is all in {DEMO}: the files, the ledger (autoloader.db) and the table (warehouse/).")


if __name__ == "__main__":
    main()
