"""Writes src/gen_green/data/cpu.csv: watts per package and, apart from it, Green Algorithms' watts per core.

    python scripts/regenerate_cpu.py cpu_power.csv TDP_cpu.csv

The first file is codecarbon's codecarbon/data/hardware/cpu_power.csv (MIT; thermal design power of a package as the
makers state it), trimmed to families in use; the second is Green Algorithms' data/v3.0/TDP_cpu.csv (CC-BY-4.0).
"""

import argparse
import csv
import re
from pathlib import Path

OUT = Path(__file__).parents[1] / "src/gen_green/data/cpu.csv"
FIELDS = ["name", "tdp_w_per_package", "cores_per_package", "green_algorithms_w_per_core", "year", "source", "licence"]
FAMILIES = re.compile(
    r"AMD (EPYC|Ryzen (Threadripper|AI|[3579] \d{4})|Opteron \d{4})|Apple M\d"
    r"|Intel (Xeon (Platinum|Gold|Silver|Bronze|[EDW]\d?-|6[5-9]\d\d)|Core (i[3579]-\d{4,5}|Ultra|[3579] ))"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("codecarbon", type=Path)
    parser.add_argument("green_algorithms", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    table: dict[str, list[str]] = {}
    with args.codecarbon.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if FAMILIES.match(row["Name"]):
                name = " ".join(row["Name"].split())
                table[name] = [f"{float(row['TDP']):g}", "", "", "2026", "codecarbon", "MIT"]
    with args.green_algorithms.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file.readlines()[1:]):  # the first line holds units
            name = " ".join(row["model"].split())
            for maker, pattern in (("Intel", r"Xeon|Core"), ("AMD", r"\d|Ryzen|FX|Athlon|A\d")):
                name = f"{maker} {name}" if re.match(pattern, name) else name
            name = re.sub(r"^AMD (7\d\d\d)$", r"AMD EPYC \1", name).replace("Rasberry", "Raspberry")
            unknown = ["", "", "", "2025", "Green Algorithms v3.0", "CC-BY-4.0"]
            tdp, _, _, year, source, licence = table.get(name, unknown)
            if tdp and source == "codecarbon":
                source, licence = "codecarbon; Green Algorithms v3.0", "MIT; CC-BY-4.0"
            table[name] = [tdp or row["TDP"], row["n_cores"], row["TDP_per_core"], year, source, licence]
    with args.out.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(FIELDS)
        out.writerows([name, *values] for name, values in sorted(table.items()))
    print(f"{len(table)} processors in {args.out}")


if __name__ == "__main__":
    main()
