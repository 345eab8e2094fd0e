"""`python -m gen_green run -- COMMAND`, and the command `gen-green`."""

from gen_green.cli import main


def console() -> None:
    main(prog="gen-green")


if __name__ == "__main__":
    main(prog="python -m gen_green")
