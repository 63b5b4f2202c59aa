"""`python -m sftlab ...`: the same commands as `sftlab`, for those without make or a PATH."""

from sftlab.cli.main import main

if __name__ == "__main__":
    main()
