"""Writes src/gen_green/data/intensity.csv: carbon intensity of electricity by country, from Our World in Data.

    python scripts/regenerate_intensity.py owid-energy-data.csv             # github.com/owid/energy-data
    python scripts/regenerate_intensity.py carbon-intensity-electricity.csv # ourworldindata.org, "Download"
    python scripts/regenerate_intensity.py global_energy_mix.json           # codecarbon's copy of the first

The last year of each country counts, or the last one up to --until. The shipped table was made from the third file,
which holds the release of 2024 (years to 2023); later releases revise earlier years by a few per cent (GB 2023: 238 g,
then 228 g).

Sources: Ember, Yearly Electricity Data, and Energy Institute, Statistical Review of World Energy, as processed by Our
World in Data, CC-BY-4.0: greenhouse gases over the life cycle per kWh generated in the country, without trade and grid
losses. The world's row is the International Energy Agency's (Global Energy and CO2 Status Report 2019: 475 g of CO2 by
combustion; the world's row of Our World in Data for 2023, over the life cycle, is 484 g).
"""

import argparse
import csv
import json
from pathlib import Path

OUT = Path(__file__).parents[1] / "src/gen_green/data/intensity.csv"
FIELDS = ["code", "iso3", "name", "g_per_kwh", "year", "basis", "source", "licence", "note"]
OWID = ["lifecycle", "Ember via Our World in Data", "CC-BY-4.0", "generation; no trade, no T&D losses"]
IEA = "IEA 2019 via Green Algorithms"
WORLD = ["WORLD", "WLD", "World", "475", "2018", "direct", IEA, "CC-BY-4.0", "combustion only"]
CODES = """
ABW:AW AFG:AF AGO:AO AIA:AI ALA:AX ALB:AL AND:AD ARE:AE ARG:AR ARM:AM ASM:AS ATA:AQ ATF:TF ATG:AG AUS:AU AUT:AT AZE:AZ
BDI:BI BEL:BE BEN:BJ BES:BQ BFA:BF BGD:BD BGR:BG BHR:BH BHS:BS BIH:BA BLM:BL BLR:BY BLZ:BZ BMU:BM BOL:BO BRA:BR BRB:BB
BRN:BN BTN:BT BVT:BV BWA:BW CAF:CF CAN:CA CCK:CC CHE:CH CHL:CL CHN:CN CIV:CI CMR:CM COD:CD COG:CG COK:CK COL:CO COM:KM
CPV:CV CRI:CR CUB:CU CUW:CW CXR:CX CYM:KY CYP:CY CZE:CZ DEU:DE DJI:DJ DMA:DM DNK:DK DOM:DO DZA:DZ ECU:EC EGY:EG ERI:ER
ESH:EH ESP:ES EST:EE ETH:ET FIN:FI FJI:FJ FLK:FK FRA:FR FRO:FO FSM:FM GAB:GA GBR:GB GEO:GE GGY:GG GHA:GH GIB:GI GIN:GN
GLP:GP GMB:GM GNB:GW GNQ:GQ GRC:GR GRD:GD GRL:GL GTM:GT GUF:GF GUM:GU GUY:GY HKG:HK HMD:HM HND:HN HRV:HR HTI:HT HUN:HU
IDN:ID IMN:IM IND:IN IOT:IO IRL:IE IRN:IR IRQ:IQ ISL:IS ISR:IL ITA:IT JAM:JM JEY:JE JOR:JO JPN:JP KAZ:KZ KEN:KE KGZ:KG
KHM:KH KIR:KI KNA:KN KOR:KR KWT:KW LAO:LA LBN:LB LBR:LR LBY:LY LCA:LC LIE:LI LKA:LK LSO:LS LTU:LT LUX:LU LVA:LV MAC:MO
MAF:MF MAR:MA MCO:MC MDA:MD MDG:MG MDV:MV MEX:MX MHL:MH MKD:MK MLI:ML MLT:MT MMR:MM MNE:ME MNG:MN MNP:MP MOZ:MZ MRT:MR
MSR:MS MTQ:MQ MUS:MU MWI:MW MYS:MY MYT:YT NAM:NA NCL:NC NER:NE NFK:NF NGA:NG NIC:NI NIU:NU NLD:NL NOR:NO NPL:NP NRU:NR
NZL:NZ OMN:OM PAK:PK PAN:PA PCN:PN PER:PE PHL:PH PLW:PW PNG:PG POL:PL PRI:PR PRK:KP PRT:PT PRY:PY PSE:PS PYF:PF QAT:QA
REU:RE ROU:RO RUS:RU RWA:RW SAU:SA SDN:SD SEN:SN SGP:SG SGS:GS SHN:SH SJM:SJ SLB:SB SLE:SL SLV:SV SMR:SM SOM:SO SPM:PM
SRB:RS SSD:SS STP:ST SUR:SR SVK:SK SVN:SI SWE:SE SWZ:SZ SXM:SX SYC:SC SYR:SY TCA:TC TCD:TD TGO:TG THA:TH TJK:TJ TKL:TK
TKM:TM TLS:TL TON:TO TTO:TT TUN:TN TUR:TR TUV:TV TWN:TW TZA:TZ UGA:UG UKR:UA UMI:UM URY:UY USA:US UZB:UZ VAT:VA VCT:VC
VEN:VE VGB:VG VIR:VI VNM:VN VUT:VU WLF:WF WSM:WS YEM:YE ZAF:ZA ZMB:ZM ZWE:ZW OWID_KOS:XK XKX:XK
"""


def rows(path: Path) -> list[tuple[str, str, int, str]]:
    """(name, ISO 3166-1 alpha-3, year, g/kWh) of every row that has an intensity, from any of the three files."""
    if path.suffix == ".json":
        table = json.loads(path.read_text(encoding="utf-8")).values()
        return [(r["country_name"], r["iso_code"], int(r["year"]), str(r["carbon_intensity"])) for r in table]
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    if not table:
        raise SystemExit(f"{path} is empty; download it anew")
    columns = [c for c in table[0] if c and "intensity" in c.lower()]
    columns = [c for c in columns if "direct" not in c.lower()]  # the table is over the life cycle
    if not columns:
        raise SystemExit(
            f"{path} has no column of carbon intensities over the life cycle, only {', '.join(list(table[0])[:6])} ..."
        )
    name, code, year = ("Entity", "Code", "Year") if "Entity" in table[0] else ("country", "iso_code", "year")
    return [(r[name], r[code], int(r[year]), r[columns[0]]) for r in table if r[columns[0]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--until", type=int, default=9999, help="leave out later years")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    alpha2 = dict(pair.split(":") for pair in CODES.split())
    latest: dict[str, tuple[int, str, str]] = {}
    for name, code, year, value in rows(args.path):
        if code in alpha2 and year <= args.until and year >= latest.get(code, (0, "", ""))[0]:
            latest[code] = (year, name, value)
    with args.out.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(FIELDS)
        out.writerow(WORLD)
        for code, (year, name, value) in sorted(latest.items(), key=lambda item: alpha2[item[0]]):
            out.writerow([alpha2[code], code, name, value, year, *OWID])
    print(f"{len(latest)} countries in {args.out}")


if __name__ == "__main__":
    main()
