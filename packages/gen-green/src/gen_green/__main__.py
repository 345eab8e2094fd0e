"""`python -m gen_green run -- COMMAND`."""

from gen_green.cli import main

main(prog="python -m gen_green")
