"""`python -m zerolabel` is the command `zerolabel`."""

from zerolabel.cli.main import main

if __name__ == "__main__":
    main()
