"""`python -m parallelizer` is the command `parallelizer`."""

from parallelizer.cli.main import run

if __name__ == "__main__":
    run()
