"""`python -m umec_platform.cli` is `umec`."""

from umec_platform.cli.main import main

if __name__ == "__main__":
    main()
